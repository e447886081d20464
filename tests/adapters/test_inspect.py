"""What `adapter inspect` says of an adapter, against what PEFT makes of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from small_bases import called, load_base, save_adapter

from loraloom.adapters.form import normal, read_form
from loraloom.adapters.inspect import kept_share, rounded

Bases = Callable[[str], Path]


PATTERNS: dict[str, Any] = {
    "rank_pattern": {"layers.0.self_attn.q_proj": 2, "v_proj": 6},
    "alpha_pattern": {r"layers\.1\..*": 3},
}


@pytest.mark.parametrize("more", [{}, {"use_rslora": True}, PATTERNS, {**PATTERNS, "use_rslora": True}])
def test_scales_are_those_that_peft_uses(more: dict[str, Any], bases: Bases, tmp_path: Path) -> None:
    base = bases("llama")
    folder = save_adapter(base, tmp_path / "a", **more)
    loaded: Any = PeftModel.from_pretrained(load_base(base, "CAUSAL_LM"), str(folder))
    form = read_form(folder)
    assert len(form.factors) == 4
    for path, factor in form.factors.items():
        layer = loaded.get_base_model().get_submodule(path)
        assert factor.scale == pytest.approx(layer.scaling["default"])
        torch.testing.assert_close(factor.update(), layer.get_delta_weight("default"), rtol=0, atol=0)
        plain = normal(form, 8).factors[path]
        assert plain.rank == 8 and plain.scale == 1
        torch.testing.assert_close(plain.update(), factor.update(), rtol=1e-5, atol=1e-7)


def test_inspect_measures_beside_the_base(bases: Bases, tmp_path: Path) -> None:
    base = bases("llama")
    folder = save_adapter(base, tmp_path / "a", spread=1e-3)
    code, out, err = called("adapter", "inspect", folder, "--model", base, "--json")
    assert code == 0, err
    found = json.loads(out)
    model = load_base(base, "CAUSAL_LM")
    for layer in found["layers"]:
        update = read_form(folder).factors[layer["path"]].update()
        weight = model.get_submodule(layer["path"]).weight
        assert layer["relative_norm"] == pytest.approx(
            float(update.norm() / weight.detach().norm()), rel=1e-4
        )
        assert 1 <= layer["effective_rank"] <= layer["rank"] == 4
        assert 0 <= layer["kept"]["bf16"] < layer["kept"]["f16"] <= 1
        assert "Q8_0" not in layer["kept"], "rows of 24 do not divide into blocks of 32"
    assert found["kept"]["bf16"] < found["kept"]["f16"]
    assert found["trained_over"] == {
        "name": str(base),
        "quantization": "none",
        "fingerprint": "",
        "matches": None,
    }
    code, out, err = called("adapter", "inspect", folder, "--model", base)
    assert code == 0, err
    lines = out.splitlines()
    assert any(line.startswith("q_proj") for line in lines)
    table = [line for line in lines if str(tmp_path) not in line and str(base) not in line]
    assert max(map(len, table)) <= 80


def test_eight_bits_are_those_of_gguf() -> None:
    quants = pytest.importorskip("gguf.quants", reason="needs the package gguf, of the extra `dev`")
    kind = pytest.importorskip("gguf").GGMLQuantizationType.Q8_0
    weight = torch.randn(5, 96, generator=torch.Generator().manual_seed(0)) * 0.05
    weight[2, :32] = 0
    expected = quants.dequantize(quants.quantize(weight.numpy(), kind), kind)
    torch.testing.assert_close(rounded(weight, "Q8_0"), torch.from_numpy(expected), rtol=1e-6, atol=0)
    small, large = (kept_share(weight, torch.randn(5, 96) * size, "Q8_0") for size in (1e-6, 0.5))
    assert small < 0.1 and large > 0.95


REFUSED: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "plain": ({}, {"vllm": "", "sglang": "", "llama.cpp": ""}),
    "rsLoRA": ({"use_rslora": True}, {"vllm": "", "sglang": "rsLoRA", "llama.cpp": "rsLoRA"}),
    "ranks": ({"rank_pattern": {"v_proj": 2}}, {"vllm": "", "sglang": "patterns", "llama.cpp": ""}),
    "DoRA": ({"use_dora": True}, {"vllm": "DoRA", "sglang": "DoRA", "llama.cpp": "DoRA"}),
    "head": ({"modules_to_save": ["lm_head"]}, {"vllm": "lm_head", "llama.cpp": "lm_head"}),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_inspect_says_what_servers_refuse(kind: str, bases: Bases, tmp_path: Path) -> None:
    more, expected = REFUSED[kind]
    folder = save_adapter(bases("llama"), tmp_path / "a", **more)
    refused = json.loads(called("adapter", "inspect", folder, "--json")[1])["refused"]
    for server, word in expected.items():
        assert word in "; ".join(refused[server]) and bool(word) == bool(refused[server])


def test_an_adapter_of_another_base_is_refused(bases: Bases, tmp_path: Path) -> None:
    folder = save_adapter(bases("llama"), tmp_path / "a")
    code, _, err = called("adapter", "inspect", folder, "--model", bases("gpt2"))
    assert code == 2 and "no layer" in err and str(bases("llama")) in err


def test_halves_of_other_ranks_are_refused(bases: Bases, tmp_path: Path) -> None:
    folder = save_adapter(bases("llama"), tmp_path / "a")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "rank_pattern": {"v_proj": 3}}))
    code, _, err = called("adapter", "inspect", folder)
    assert code == 2 and "v_proj" in err and "3 x in" in err


def test_a_start_that_changes_the_base_is_refused(bases: Bases, tmp_path: Path) -> None:
    folder = save_adapter(bases("llama"), tmp_path / "a")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "init_lora_weights": "pissa"}))
    code, _, err = called("adapter", "inspect", folder)
    assert code == 2 and "pissa" in err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("adapter", "inspekt", "x"), "adapter inspect"),
        (("adapter", "runs/x"), "needs a verb"),
        (("merge", "x"), "did you mean `loraloom adapter merge`?"),
        (("adapter", "inspect", "x", "--rank", "3"), "adapter inspect"),
        (("adapter", "inspect", "nowhere"), "no adapter of PEFT"),
    ],
)
def test_a_wrong_word_is_named(words: tuple[str, ...], expected: str) -> None:
    code, _, err = called(*words)
    assert code == 2 and expected in err
    assert "Traceback" not in err
