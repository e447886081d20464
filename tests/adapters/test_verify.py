"""A proof holds for what was merged, and fails for what is nearly that."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_bases import called, save_adapter

Bases = Callable[[str], Path]
Tensors = dict[str, torch.Tensor]
LAYER = "model.layers.{}.self_attn.{}.weight"


def wrong_scale(tensors: Tensors, base: Tensors) -> None:
    for name in tensors:
        tensors[name] = base[name] + (tensors[name] - base[name]) / 2


def missing_layer(tensors: Tensors, base: Tensors) -> None:
    tensors[LAYER.format(1, "v_proj")] = base[LAYER.format(1, "v_proj")]


def swapped_layers(tensors: Tensors, base: Tensors) -> None:
    first, second = (LAYER.format(number, "q_proj") for number in (0, 1))
    tensors[first], tensors[second] = tensors[second], tensors[first]


def by_half_precision(tensors: Tensors, base: Tensors) -> None:
    for name in tensors:
        tensors[name] = tensors[name].to(torch.bfloat16).to(torch.float32)


def merged(bases: Bases, here: Path) -> tuple[Path, Path]:
    base = bases("llama")
    adapter = save_adapter(base, here / "a")
    code, _, err = called("adapter", "merge", adapter, "--model", base, "--out", here / "m")
    assert code == 0, err
    return base, here / "m"


@pytest.mark.parametrize("spoil", [wrong_scale, missing_layer, swapped_layers, by_half_precision])
def test_a_merge_gone_wrong_is_rejected(
    spoil: Callable[[Tensors, Tensors], None], bases: Bases, tmp_path: Path
) -> None:
    base, out = merged(bases, tmp_path)
    tensors = load_file(out / "model.safetensors")
    spoil(tensors, load_file(base / "model.safetensors"))
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    code, _, err = called("adapter", "verify", out)
    assert code == 1 and "is not what was trained" in err
    assert not out.exists()
    proof = json.loads((tmp_path / "m.rejected" / "proof.json").read_text())
    assert proof["passed"] is False and proof["kl_mean"] > proof["allowed_kl"]


def cut(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * 2 // 3])


def lacking(file: Path) -> None:
    tensors = load_file(file)
    del tensors[LAYER.format(0, "q_proj")]
    save_file(tensors, file, metadata={"format": "pt"})


@pytest.mark.parametrize("spoil", [cut, lacking])
def test_an_artefact_that_cannot_be_loaded_is_rejected(
    spoil: Callable[[Path], None], bases: Bases, tmp_path: Path
) -> None:
    _, out = merged(bases, tmp_path)
    spoil(out / "model.safetensors")
    code, _, err = called("adapter", "verify", out)
    assert code == 1 and "cannot be loaded" in err and "renamed to" in err
    assert not out.exists() and (tmp_path / "m.rejected").is_dir()


def test_other_token_ids_are_rejected(bases: Bases, tmp_path: Path) -> None:
    _, out = merged(bases, tmp_path)
    tokenizer = json.loads((out / "tokenizer.json").read_text())
    tokenizer["normalizer"] = {"type": "Lowercase"}
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["the"] = vocabulary.pop("w0")
    (out / "tokenizer.json").write_text(json.dumps(tokenizer))
    code, _, err = called("adapter", "verify", out)
    assert code == 1 and "token ids DIFFER" in err


def test_a_good_merge_and_an_adapter_are_proved(bases: Bases, tmp_path: Path) -> None:
    _, out = merged(bases, tmp_path)
    for place in (out, tmp_path / "a"):
        code, text, err = called("adapter", "verify", place)
        assert code == 0, err
        assert text.startswith("proved: KL") and "token ids equal" in text
    found = json.loads((out / "proof.json").read_text())
    assert found["passed"] and found["top1_agreement"] == 1
    assert found["effect"] > 100 * found["kl_mean"]


def test_an_effect_below_the_rounding_is_said_to_drown(bases: Bases, tmp_path: Path) -> None:
    base = bases("llama")
    adapter = save_adapter(base, tmp_path / "a", spread=2e-4)
    words = ("--model", base, "--dtype", "bfloat16", "--out", tmp_path / "m")
    code, text, err = called("adapter", "merge", adapter, *words)
    assert "drowns in BF16" in text + err
    assert code in (0, 1)


def test_a_folder_that_merge_did_not_write_is_refused(bases: Bases, tmp_path: Path) -> None:
    place = shutil.copytree(bases("llama"), tmp_path / "base")
    code, _, err = called("adapter", "verify", place)
    assert code == 2 and "proof.json" in err
