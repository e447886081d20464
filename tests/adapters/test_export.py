"""Adapters brought to servers: what is written computes what was trained, and the rest is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_bases import called, save_adapter

from loraloom.adapters.export import mlx
from loraloom.adapters.form import read_form

Bases = Callable[[str], Path]
KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "patterns": {"rank_pattern": {"layers.1.self_attn.v_proj": 9}, "alpha_pattern": {"q_proj": 3}},
    "pieces": {"target_modules": r".*layers\.1\.self_attn\.q_proj"},
}


def exported(bases: Bases, here: Path, target: str, **config: Any) -> tuple[int, dict[str, Any], Path]:
    """`adapter export --json` of a new adapter over the tiny Llama."""
    base = bases("llama")
    adapter = save_adapter(base, here / "a", **config)
    out = here / "out"
    words = ("--to", target, "--model", base, "--out", out, "--json")
    code, text, err = called("adapter", "export", adapter, *words)
    assert text, err
    return code, json.loads(text), out


@pytest.mark.parametrize(
    ("target", "kind"),
    [("vllm", "lora"), ("vllm", "patterns"), ("sglang", "rslora"), ("sglang", "pieces")],
)
def test_servers_get_one_rank_and_one_scale(
    target: str, kind: str, bases: Bases, tmp_path: Path
) -> None:
    code, document, out = exported(bases, tmp_path, target, **KINDS[kind])
    assert code == 0 and document["proof"]["passed"] and document["proof"]["format"] == "PEFT"
    config = json.loads((out / "adapter_config.json").read_text())
    largest = max(read_form(tmp_path / "a").ranks)
    rank = {4: 8, 9: 16}[largest] if target == "vllm" else largest
    assert (config["r"], config["lora_alpha"]) == (rank, rank)
    assert not (config["rank_pattern"] or config["alpha_pattern"] or config["use_rslora"])
    assert all(factor.scale == 1 and factor.rank == rank for factor in read_form(out).factors.values())
    (command,) = document["commands"]
    assert f"--max-lora-rank {rank}" in command and f"a={out}" in command
    assert called("adapter", "verify", out)[0] == 0


@pytest.mark.parametrize("kind", ["patterns", "pieces"])
def test_mlx_gets_the_same_update_turned_round(kind: str, bases: Bases, tmp_path: Path) -> None:
    code, document, out = exported(bases, tmp_path, "mlx", **KINDS[kind])
    assert code == 0
    asked = json.loads((out / mlx.CONFIG).read_text())
    assert asked["num_layers"] == 2 and asked["lora_parameters"]["scale"] == 1.0
    tensors = load_file(out / mlx.WEIGHTS)
    factors = read_form(tmp_path / "a").factors
    keys = asked["lora_parameters"]["keys"]
    paths = [f"model.layers.{block}.{key}" for block in range(2) for key in keys]
    assert set(tensors) == {f"{path}.{half}" for path in paths for half in ("lora_a", "lora_b")}
    for path in paths:
        made = tensors[f"{path}.lora_a"] @ tensors[f"{path}.lora_b"]
        trained = factors[path].update(transposed=True) if path in factors else torch.zeros_like(made)
        assert torch.allclose(made, trained, atol=1e-6)
    if document["proof"] is None:
        assert "mlx-lm is not installed" in document["not_proved"]
    else:
        assert document["proof"]["passed"]


def test_mlx_computes_what_was_trained(bases: Bases, tmp_path: Path) -> None:
    pytest.importorskip("mlx_lm", reason="mlx-lm is not installed")
    code, document, out = exported(bases, tmp_path, "mlx", use_dora=True)
    assert code == 0 and document["proof"]["passed"], document
    tensors = load_file(out / mlx.WEIGHTS)
    for name in tensors:
        tensors[name] = tensors[name] / 2 if name.endswith("lora_b") else tensors[name]
    save_file(tensors, out / mlx.WEIGHTS)
    code, _, err = called("adapter", "verify", out)
    assert code == 1 and "is not what was trained" in err and not out.exists()


def test_a_merged_target_is_the_merge(bases: Bases, tmp_path: Path) -> None:
    code, document, out = exported(bases, tmp_path, "merged")
    assert code == 0 and document["proof"]["passed"] and document["proof"]["format"] == "F32"
    words = ("--model", bases("llama"), "--out", tmp_path / "m")
    assert called("adapter", "merge", tmp_path / "a", *words)[0] == 0
    names = ("model.safetensors", "config.json")
    assert all((out / name).read_bytes() == (tmp_path / "m" / name).read_bytes() for name in names)


REFUSED = [
    ("vllm", {"use_dora": True}, "DoRA"),
    ("sglang", {"bias": "lora_only", "target_modules": ["query", "value"]}, "SEQ_CLS"),
    ("sglang", {"modules_to_save": ["lm_head"]}, "modules trained whole (lm_head)"),
    ("mlx", {"modules_to_save": ["norm"]}, "modules trained whole"),
    ("mlx", {"target_modules": ["embed_tokens"]}, "modules trained whole"),
    ("mlx", {"use_dora": True, "target_modules": r".*layers\.1\..*q_proj"}, "in some of the blocks"),
    ("vllm", {"r": 600}, "no rank 600"),
]


@pytest.mark.parametrize(("target", "config", "said"), REFUSED)
def test_what_a_target_has_no_place_for_is_refused_with_a_way_on(
    target: str, config: dict[str, Any], said: str, bases: Bases, tmp_path: Path
) -> None:
    classes = "query" in str(config)
    base = bases("bert" if classes else "llama")
    adapter = save_adapter(base, tmp_path / "a", task="SEQ_CLS" if classes else "CAUSAL_LM", **config)
    words = ("--to", target, "--model", base, "--out", tmp_path / "out")
    code, _, err = called("adapter", "export", adapter, *words)
    assert code == 2 and said in err, err
    assert "--to merged" in err
    assert not (tmp_path / "out").exists()


def test_a_head_that_vllm_knows_by_name_goes_along(bases: Bases, tmp_path: Path) -> None:
    base = bases("bert")
    asked = {"target_modules": ["query", "value"], "modules_to_save": ["classifier"]}
    adapter = save_adapter(base, tmp_path / "a", task="SEQ_CLS", **asked)
    words = ("--to", "vllm", "--model", base, "--out", tmp_path / "out", "--json")
    code, text, err = called("adapter", "export", adapter, *words)
    assert code == 0, err
    assert json.loads(text)["proof"]["effect"] is None, "the base has no head"
    assert "--convert classify" in json.loads(text)["commands"][0]
    brought, written = (
        load_file(tmp_path / name / "adapter_model.safetensors") for name in ("a", "out")
    )
    assert all(name in written for name in brought if "classifier" in name)


def test_a_dry_run_lists_and_writes_nothing(bases: Bases, tmp_path: Path) -> None:
    base = bases("llama")
    adapter = save_adapter(base, tmp_path / "a")
    for target in ("merged", "vllm", "mlx"):
        words = ("--to", target, "--model", base, "--out", tmp_path / "out", "--dry-run")
        code, text, err = called("adapter", "export", adapter, *words)
        assert code == 0 and "write " in text, err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]


def test_without_a_runtime_it_is_not_proved(
    bases: Bases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlx, "find_spec", lambda name: None)
    base, out = bases("llama"), tmp_path / "out"
    adapter = save_adapter(base, tmp_path / "a")
    words = ("adapter", "export", adapter, "--to", "mlx", "--model", base, "--out", out)
    code, text, _ = called(*words)
    assert code == 0 and text.startswith("not proved: mlx-lm is not installed")
    assert not (out / "proof.json").exists()
    shutil.rmtree(out)
    code, _, err = called(*words, "--prove")
    assert code == 1 and "was written and is not proved" in err
    assert (out / mlx.WEIGHTS).is_file()


def test_a_target_that_is_not_known_is_named(bases: Bases, tmp_path: Path) -> None:
    words = ("--to", "onnx", "--out", tmp_path / "out")
    code, _, err = called("adapter", "export", tmp_path, *words)
    assert code == 2 and "there is no target `onnx`" in err and "vllm" in err


def test_one_artefact_that_fails_does_not_hide_the_others(bases: Bases, tmp_path: Path) -> None:
    base = bases("llama")
    adapter = save_adapter(base, tmp_path / "run" / "best", use_dora=True)
    words = ("--to", "vllm,merged", "--model", base)
    code, text, err = called("ship", adapter.parent, *words, "--json")
    document = json.loads(text)
    assert code == 1 and "1 of 2 artefacts failed: vllm" in err
    assert list(document["failed"]) == ["vllm"] and "DoRA" in document["failed"]["vllm"]
    (merged,) = document["artefacts"]
    assert merged["proof"]["passed"] and Path(merged["out"]) == tmp_path / "run" / "ship" / "merged"
    again = called("ship", adapter.parent, "--to", "merged", "--model", base)
    assert again[0] == 1 and "is there already" in again[1]


def test_ship_prints_three_lines_and_what_to_type(bases: Bases, tmp_path: Path) -> None:
    base = bases("llama")
    adapter = save_adapter(base, tmp_path / "run" / "best")
    out = tmp_path / "shipped"
    code, text, err = called(
        "ship", adapter.parent, "--to", "sglang,vllm", "--model", base, "--out", out
    )
    assert code == 0, err
    assert text.count("proved: KL") == text.count("top-1 agreement") == text.count("effect of") == 2
    assert "--lora-paths" in text and "--lora-modules" in text
    assert {path.name for path in out.iterdir()} == {"sglang", "vllm"}
