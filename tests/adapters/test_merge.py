"""`adapter merge` against PEFT's own merge in float32, bit for bit."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from small_bases import AUTO, called, load_base, save_adapter, save_base

from loraloom.adapters.base_files import BaseFiles
from loraloom.adapters.form import read_form
from loraloom.adapters.merge import plan_merge

Bases = Callable[[str], Path]

PATTERNS: dict[str, Any] = {
    "rank_pattern": {"layers.0.self_attn.q_proj": 2, "v_proj": 6},
    "alpha_pattern": {r"layers\.1\..*": 3},
}
LINEAR = ["q_proj", "v_proj", "up_proj", "down_proj"]
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "LoRA": ("llama", {"target_modules": LINEAR}),
    "rsLoRA": ("llama", {"use_rslora": True}),
    "patterns": ("llama", PATTERNS),
    "DoRA": ("llama", {"use_dora": True, "target_modules": LINEAR}),
    "biases": ("qwen2", {"bias": "lora_only"}),
    "all biases": ("qwen2", {"bias": "all"}),
    "modules_to_save": ("llama", {"modules_to_save": ["lm_head", "embed_tokens"]}),
    "embeddings": ("llama", {"target_modules": ["embed_tokens", "lm_head", "q_proj"]}),
    "tokens": ("llama", {"trainable_token_indices": [3, 7]}),
    "whole tied head": ("tied", {"modules_to_save": ["lm_head"]}),
    "Conv1D": ("gpt2", {"target_modules": ["c_attn", "c_fc"]}),
    "Conv1D, DoRA": ("gpt2", {"target_modules": ["c_attn", "c_proj"], "use_dora": True}),
    "seq_cls": ("bert", {"target_modules": ["query", "value"], "task": "SEQ_CLS"}),
    "seq_cls, a head of two layers": ("roberta", {"target_modules": ["query"], "task": "SEQ_CLS"}),
    "seq_cls of a decoder": ("llama", {"task": "SEQ_CLS"}),
    "seq2seq": ("t5", {"target_modules": ["q", "wo"], "task": "SEQ_2_SEQ_LM"}),
}


def merged_by_peft(base: Path, adapter: Path, task: str) -> dict[str, torch.Tensor]:
    loaded: Any = PeftModel.from_pretrained(load_base(base, task), str(adapter))
    return dict(loaded.merge_and_unload().state_dict())


@pytest.mark.parametrize("kind", KINDS)
def test_merged_is_what_peft_merges_bit_for_bit(kind: str, bases: Bases, tmp_path: Path) -> None:
    name, more = KINDS[kind]
    base, task = bases(name), more.get("task", "CAUSAL_LM")
    adapter = save_adapter(base, tmp_path / "a", **more)
    code, out, err = called(
        "adapter", "merge", adapter, "--model", base, "--out", tmp_path / "m", "--json"
    )
    assert code == 0, err
    proof = json.loads(out)["proof"]
    assert proof["passed"] and proof["kl_mean"] <= 1e-9 and proof["token_ids_equal"]
    merged = AUTO[task].from_pretrained(tmp_path / "m", output_loading_info=True)
    model, info = merged
    assert not info["missing_keys"] and not info["mismatched_keys"]
    # What the base has and the task does not use is copied too: its own head, a pooler.
    assert set(info["unexpected_keys"]) <= load_file(base / "model.safetensors").keys()
    expected = merged_by_peft(base, adapter, task)
    for key, value in model.state_dict().items():
        assert torch.equal(value, expected[key]), key


@pytest.mark.parametrize("kind", ["LoRA", "DoRA", "embeddings", "tokens", "Conv1D", "Conv1D, DoRA"])
def test_a_large_tensor_is_the_same_in_pieces(
    kind: str, bases: Bases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loraloom.adapters.operations.PIECE", 100)
    name, more = KINDS[kind]
    form = read_form(save_adapter(bases(name), tmp_path / "a", **more))
    plan = plan_merge(form, BaseFiles(bases(name), form))
    for operation in plan.operations:
        pieces = list(operation.pieces())
        assert len(pieces) > 1 or len(operation.shape) == 1
        assert max(piece.numel() for piece in pieces) <= 100 + operation.shape[-1]
        torch.testing.assert_close(torch.cat(pieces), operation.value(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_a_shared_weight_is_changed_on_one_side_only(target: str, bases: Bases, tmp_path: Path) -> None:
    """As the live adapter does; PEFT merges into both."""
    base = bases("tied")
    adapter = save_adapter(base, tmp_path / "a", target_modules=["q_proj", target])
    out = tmp_path / "m"
    code, _, err = called("adapter", "merge", adapter, "--model", base, "--out", out)
    assert code == 0, err
    assert json.loads((out / "config.json").read_text())["tie_word_embeddings"] is False
    live: Any = PeftModel.from_pretrained(load_base(base, "CAUSAL_LM"), str(adapter)).eval()
    ids = torch.arange(3, 23)[None]
    with torch.no_grad():
        expected, got = live(ids).logits, load_base(out, "CAUSAL_LM").eval()(ids).logits
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_untouched_tensors_and_files_are_the_same_bytes(tmp_path: Path) -> None:
    base = save_base("llama", tmp_path / "base", torch.bfloat16, shard="8KB")
    parts = sorted(path.name for path in base.glob("model-*.safetensors"))
    assert len(parts) > 2
    adapter = save_adapter(base, tmp_path / "a", spread=0.01)
    code, _, err = called("adapter", "merge", adapter, "--model", base, "--out", tmp_path / "m")
    assert code == 0, err
    assert sorted(path.name for path in (tmp_path / "m").glob("model-*.safetensors")) == parts
    changed: set[str] = set()
    for part in parts:
        before, after = load_file(base / part), load_file(tmp_path / "m" / part)
        assert list(before) == list(after)
        for name in before:
            assert after[name].dtype == torch.bfloat16
            if not torch.equal(before[name].view(torch.int16), after[name].view(torch.int16)):
                changed.add(name.rpartition(".weight")[0].rpartition(".")[2])
    assert changed == {"q_proj", "v_proj"}
    for name in ("tokenizer.json", "generation_config.json"):
        assert (base / name).read_bytes() == (tmp_path / "m" / name).read_bytes()


def test_a_sum_is_rounded_once(bases: Bases, tmp_path: Path) -> None:
    base = bases("llama")
    adapter = save_adapter(base, tmp_path / "a", spread=0.01)
    words = ("--model", base, "--dtype", "bfloat16", "--out", tmp_path / "m")
    code, _, err = called("adapter", "merge", adapter, *words)
    assert code == 0, err
    expected = merged_by_peft(base, adapter, "CAUSAL_LM")
    for name, value in load_file(tmp_path / "m" / "model.safetensors").items():
        assert torch.equal(value, expected[name].to(torch.bfloat16)), name


def test_dry_run_lists_the_operations_and_writes_nothing(bases: Bases, tmp_path: Path) -> None:
    base = bases("llama")
    adapter = save_adapter(base, tmp_path / "a")
    words = ("adapter", "merge", adapter, "--model", base, "--out", tmp_path / "m", "--dry-run")
    code, out, err = called(*words)
    assert code == 0, err
    assert sum(line.startswith("patch") for line in out.splitlines()) == 4
    assert not list(tmp_path.glob("*m*"))
    listed = json.loads(called(*words, "--json")[1])["operations"]
    assert sum(one["operation"] == "patch" for one in listed) == 4


def test_nothing_that_was_cut_short_looks_finished(
    bases: Bases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = bases("llama")
    adapter = save_adapter(base, tmp_path / "a")
    monkeypatch.setattr("loraloom.adapters.operations.bytes_of", _full_disk)
    code, _, err = called("adapter", "merge", adapter, "--model", base, "--out", tmp_path / "m")
    assert code == 2 and "the disk is full" in err
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def _full_disk(tensor: torch.Tensor) -> bytes:
    raise OSError(28, "No space left on device")


def _scaled_to_nothing(here: Path, base: Path) -> None:
    from safetensors.torch import save_file

    tensors = load_file(here / "adapter_model.safetensors")
    zero = {k: v * 0 if "lora_B" in k else v for k, v in tensors.items()}
    save_file(zero, here / "adapter_model.safetensors")


def _cut(here: Path, base: Path) -> None:
    content = (base / "model.safetensors").read_bytes()
    (base / "model.safetensors").write_bytes(content[: len(content) // 2])


def _quantised(here: Path, base: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (base / "config.json").write_text(json.dumps(config))


BAD: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "an adapter that changes nothing": (_scaled_to_nothing, "changes nothing"),
    "a cut file": (_cut, "cut off"),
    "a quantised base": (_quantised, "--model ORIGINAL"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_merged_is_refused(kind: str, tmp_path: Path) -> None:
    spoil, expected = BAD[kind]
    base = save_base("llama", tmp_path / "base")
    adapter = save_adapter(base, tmp_path / "a")
    spoil(adapter, base)
    code, _, err = called("adapter", "merge", adapter, "--model", base, "--out", tmp_path / "m")
    assert code == 2 and expected in err, err
    assert not list(tmp_path.glob("*m*"))


def test_another_base_and_a_taken_place_are_refused(bases: Bases, tmp_path: Path) -> None:
    adapter = save_adapter(bases("llama"), tmp_path / "a")
    wider = shutil.copytree(bases("gpt2"), tmp_path / "other")
    code, _, err = called("adapter", "merge", adapter, "--model", wider, "--out", tmp_path / "m")
    assert code == 2 and "no layer" in err
    code, _, err = called("adapter", "merge", adapter, "--out", tmp_path / "a")
    assert code == 2 and "is there already" in err


KILLED = """
import os, sys
from loraloom.adapters import operations
write = operations.write_file
def killed(*given):
    write(*given)
    os._exit(8 if "transformers" in sys.modules else 9)
operations.write_file = killed
from loraloom.cli.main import main
main(sys.argv[1:])
"""


def test_a_merge_that_was_killed_leaves_nothing_that_looks_finished(
    bases: Bases, tmp_path: Path
) -> None:
    base = bases("llama")
    adapter = save_adapter(base, tmp_path / "a")
    words = ["adapter", "merge", adapter, "--model", base, "--out", tmp_path / "m"]
    done = subprocess.run([sys.executable, "-c", KILLED, *map(str, words)], check=False)
    assert done.returncode == 9, "8: the weights are written with transformers in memory"
    assert not (tmp_path / "m").exists()
    assert not list(tmp_path.glob(".m.part/config.json"))
    code, _, err = called(*words)
    assert code == 0, err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "m"]


def test_an_adapter_over_a_quantised_base_says_so(bases: Bases, tmp_path: Path) -> None:
    base = bases("llama")
    adapter = save_adapter(base, tmp_path / "a")
    held = {"base": {"quantization": "nf4", "dtype": "float32", "kept_layers": []}}
    (adapter / "loraloom.json").write_text(json.dumps(held))
    code, out, err = called("adapter", "merge", adapter, "--model", base, "--out", tmp_path / "m")
    assert code == 0, err
    assert "trained over nf4" in out
    assert "nf4" in json.loads((tmp_path / "m" / "proof.json").read_text())["notes"][0]
