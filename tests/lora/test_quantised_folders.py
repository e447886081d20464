"""Bases whose files are in few bits already: read as they are, or refused with what can be read."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from loraloom.errors import ModelError, RequestError
from loraloom.lora import quantised
from loraloom.lora.base import load_base
from loraloom.lora.quantised import QuantisedLinear

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "end_to_end"))
from bases import save_llama

from few_bits import save_gptq

SENTENCES = ["one small step", "the other way round", "a step the other way"]


def save_in_bits(folder: Path, **bits: Any) -> Path:
    """A base as bitsandbytes and transformers write it."""
    full = save_llama(folder / "full", SENTENCES, hidden_size=64, intermediate_size=128)
    config = transformers.BitsAndBytesConfig(**bits)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(full, quantization_config=config)
    model.save_pretrained(folder / "coded")
    transformers.AutoTokenizer.from_pretrained(full).save_pretrained(folder / "coded")
    return folder


@pytest.mark.parametrize(
    "bits",
    [
        {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
        {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
        {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"},
        {"load_in_8bit": True},
    ],
    ids=["double", "single", "fp4", "int8"],
)
def test_a_folder_of_bitsandbytes_is_the_base_that_it_was_made_of(
    tmp_path: Path, bits: dict[str, Any]
) -> None:
    pytest.importorskip("bitsandbytes", reason="needs bitsandbytes: pip install 'loraloom[quant]'")
    folder = save_in_bits(tmp_path, **bits)
    base = load_base(str(folder / "coded"), "causal_lm")
    full = load_base(str(folder / "full"), "causal_lm")
    layers = [layer for layer in base.model.modules() if isinstance(layer, QuantisedLinear)]
    assert len(layers) == 14 and base.parameters == full.parameters and base.quantization == "none"
    kind = "int8" if "load_in_8bit" in bits else "nf4"
    made = load_base(str(folder / "full"), "causal_lm", quantization=kind)
    if bits.get("bnb_4bit_quant_type") == "fp4":
        return
    for path, layer in base.model.named_modules():
        if isinstance(layer, QuantisedLinear) and (kind == "int8" or len(bits) == 3):
            assert torch.equal(layer.dense(), made.model.get_submodule(path).dense())
    with pytest.raises(ModelError, match="needs the full weights"):
        load_base(str(folder / "coded"), "causal_lm", quantization="nf4")


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(("version", "shuffled"), [("gptq", False), ("gptq", True), ("gptq_v2", False)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_folder_of_gptq_spreads_to_the_paper_s_formula_bit_for_bit(
    tmp_path: Path, bits: int, version: str, shuffled: bool, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    meant = save_gptq(tmp_path, SENTENCES, bits, version=version, shuffled=shuffled)
    base = load_base(str(tmp_path), "causal_lm", dtype=dtype)
    for name, weight in meant.items():
        layer = base.model.get_submodule(name.removesuffix(".weight"))
        assert torch.equal(layer.dense(), weight.to(getattr(torch, dtype)))
        monkeypatch.setattr(quantised, "BLOCK_BYTES", 24 * 64 * 4)
        assert torch.equal(torch.cat([rows for _, rows in layer.blocks()]), layer.dense())
    ids = torch.arange(1, 7)[None]
    assert base.model(ids).logits.isfinite().all()


@pytest.mark.parametrize(
    "stated",
    [
        {"quant_method": "awq", "bits": 4},
        {"quant_method": "hqq"},
        {"quant_method": "gptq", "bits": 3},
        {"quant_method": "torchao", "quant_type": {"default": {"_type": "Int4WeightOnlyConfig"}}},
        {"quant_method": "something new"},
    ],
    ids=lambda stated: str(stated["quant_method"]),
)
def test_what_cannot_be_read_is_refused_with_what_can(tmp_path: Path, stated: dict[str, Any]) -> None:
    folder = save_llama(tmp_path, SENTENCES)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": stated}))
    with pytest.raises(ModelError) as caught:
        load_base(str(folder), "causal_lm")
    assert str(stated["quant_method"]) in str(caught.value) and "GPTQ" in str(caught.value)
    assert "model.quantization" in str(caught.value)


def test_a_folder_of_torchao_in_8_bits_spreads_to_what_torchao_spreads(tmp_path: Path) -> None:
    torchao = pytest.importorskip("torchao.quantization", reason="needs torchao: pip install torchao")
    full = save_llama(tmp_path / "full", SENTENCES, hidden_size=64, intermediate_size=128)
    config = transformers.TorchAoConfig(torchao.Int8WeightOnlyConfig())
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(full, quantization_config=config)
    model.save_pretrained(tmp_path / "coded")
    transformers.AutoTokenizer.from_pretrained(full).save_pretrained(tmp_path / "coded")
    base = load_base(str(tmp_path / "coded"), "causal_lm")
    layers = [path for path, layer in base.model.named_modules() if isinstance(layer, QuantisedLinear)]
    assert len(layers) == 14
    for path in layers:
        spread = model.get_submodule(path).weight.dequantize().float()
        assert torch.allclose(base.model.get_submodule(path).dense(), spread, atol=1e-3)


def test_without_torchao_its_folders_name_it(tmp_path: Path) -> None:
    if find_spec("torchao") is not None:
        pytest.skip("torchao is here")
    folder = save_llama(tmp_path, SENTENCES)
    config = json.loads((folder / "config.json").read_text())
    stated = {"quant_method": "torchao", "quant_type": {"default": {"_type": "Int8WeightOnlyConfig"}}}
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": stated}))
    with pytest.raises(RequestError, match="pip install torchao"):
        load_base(str(folder), "causal_lm")
