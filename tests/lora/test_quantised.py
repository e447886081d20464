"""Layers in few bits: what they spread and multiply, and that bitsandbytes' own layers
are gone before any runs."""

from __future__ import annotations

import copy
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from few_bits import repacked
from loraloom.errors import ModelError, RequestError
from loraloom.lora import quantised
from loraloom.lora.base import load_base
from loraloom.lora.frozen import times, times_transposed
from loraloom.lora.quantised import FourBitLinear, Int8Linear, QuantisedLinear
from loraloom.lora.quantised_loading import take_over

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "end_to_end"))
from bases import save_bert, save_llama, save_t5

bnb: Any = pytest.importorskip(
    "bitsandbytes", reason="needs bitsandbytes: pip install 'loraloom[quant]'"
)

SENTENCES = ["one small step", "the other way round", "a step the other way"]
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def four_bits(
    weight: torch.Tensor, *, nested: bool = True, dtype: torch.dtype | None = None
) -> FourBitLinear:
    codes, state = bnb.functional.quantize_4bit(weight, compress_statistics=nested, quant_type="nf4")
    return FourBitLinear(codes, state, None, dtype or weight.dtype)


def eight_bits(weight: torch.Tensor) -> Int8Linear:
    scales = weight.float().abs().amax(1) / 127
    return Int8Linear(
        (weight.float() / scales[:, None]).round().to(torch.int8), scales, None, weight.dtype
    )


def plain_nf4(layer: FourBitLinear) -> torch.Tensor:
    """The paper's own words: a table of 16 numbers times the scale of each block."""
    table = bnb.functional.get_4bit_type("nf4", device="cpu")
    numbers = torch.stack([layer.codes >> 4, layer.codes & 15], 1).reshape(-1).long()
    scales = layer.scales
    if layer.nested:
        wide = layer.scale_map[scales.long()]
        scales = (
            wide * layer.scales_of_scales.repeat_interleave(layer.scale_block)[: len(wide)]
            + layer.offset
        )
    spread = table[numbers] * scales.float().repeat_interleave(layer.block)[: len(numbers)]
    return spread[: layer.out_features * layer.in_features].view(layer.out_features, layer.in_features)


@pytest.mark.parametrize("shape", [(48, 32), (96, 160), (7, 24), (1, 64), (130, 33 * 2)])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("nested", [True, False])
def test_nf4_spreads_to_the_table_times_the_scales_bit_for_bit(
    shape: tuple[int, int], dtype: torch.dtype, nested: bool
) -> None:
    torch.manual_seed(0)
    layer = four_bits(torch.randn(shape).to(dtype), nested=nested)
    assert torch.equal(layer.dense(), plain_nf4(layer).to(dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_int8_spreads_to_codes_times_scales_bit_for_bit(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = eight_bits(torch.randn(48, 32).to(dtype))
    assert torch.equal(layer.dense(), (layer.codes.float() * layer.scales[:, None]).to(dtype))


@pytest.mark.parametrize("width", [32, 48, 66])
@pytest.mark.parametrize("make", [four_bits, eight_bits])
def test_block_by_block_is_the_whole(make: Any, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    layer = make(torch.randn(300, width))
    monkeypatch.setattr(quantised, "BLOCK_BYTES", 40 * width * 4)
    blocks = list(layer.blocks())
    assert len(blocks) > 1 and [rows.start for rows, _ in blocks[1:]] == [
        rows.stop for rows, _ in blocks[:-1]
    ]
    assert torch.equal(torch.cat([rows for _, rows in blocks]), layer.dense())
    x, gy = torch.randn(5, width), torch.randn(5, 300)
    assert torch.allclose(times_transposed(x, layer, None), x @ layer.dense().T, atol=1e-5)
    assert torch.allclose(times(gy, layer), gy @ layer.dense(), atol=1e-4)


def test_gradients_are_those_of_the_plain_product_and_nothing_dense_is_kept() -> None:
    torch.manual_seed(0)
    layer = four_bits(torch.randn(24, 32)).to(torch.float64)
    x = torch.randn(3, 4, 32, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        layer(x).sum().backward()
    assert not kept


def test_a_new_dtype_is_what_a_weight_is_spread_to_and_leaves_its_codes_alone() -> None:
    layer = four_bits(torch.randn(24, 32))
    before = {name: buffer.clone() for name, buffer in layer.named_buffers()}
    spread = layer.dense()
    layer.to(torch.bfloat16)
    assert torch.equal(layer.weight, spread.to(torch.bfloat16))
    for name, buffer in layer.named_buffers():
        assert buffer.dtype == before[name].dtype and torch.equal(buffer, before[name])


# loading


@pytest.mark.parametrize("kind", ["nf4", "int8"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_layers_inside_the_blocks_are_quantised_and_all_others_are_as_they_were(
    tmp_path: Path, kind: str, dtype: str
) -> None:
    folder = str(save_llama(tmp_path, SENTENCES))
    full, base = (load_base(folder, "causal_lm", dtype=dtype, quantization=q) for q in ("none", kind))
    assert base.quantization == kind and base.parameters == full.parameters
    assert base.stored_bytes < full.stored_bytes
    for path, layer in full.model.named_modules():
        other = base.model.get_submodule(path)
        if type(layer) is nn.Linear and ".layers." in f".{path}":
            assert isinstance(other, QuantisedLinear)
            apart = (other.dense() - layer.weight).norm() / layer.weight.norm()
            assert 0 < apart < (0.2 if kind == "nf4" else 0.02)
        else:
            for name, parameter in layer.named_parameters(recurse=False):
                assert torch.equal(parameter, other.get_parameter(name)) and parameter.dtype == getattr(
                    torch, dtype
                )
    assert not [
        layer for layer in base.model.modules() if type(layer).__module__.startswith("bitsandbytes")
    ]


@pytest.mark.parametrize(("task", "save"), [("seq_cls", save_bert), ("seq2seq_lm", save_t5)])
def test_classifiers_and_encoder_decoders_too(tmp_path: Path, task: Any, save: Any) -> None:
    names = ("no", "yes") if task == "seq_cls" else None
    base = load_base(str(save(tmp_path, SENTENCES)), task, label_names=names, quantization="nf4")
    layers = {path for path, layer in base.model.named_modules() if isinstance(layer, QuantisedLinear)}
    assert layers and not [path for path in layers if path.split(".")[0] in ("classifier", "lm_head")]
    assert base.fresh_modules == (("classifier",) if task == "seq_cls" else ())


def test_a_new_head_is_drawn_from_the_seed_whatever_the_base_is_held_in(tmp_path: Path) -> None:
    folder = str(save_bert(tmp_path, SENTENCES))
    heads = [
        load_base(
            folder, "seq_cls", label_names=("no", "yes"), seed=3, quantization=kind
        ).model.classifier.weight
        for kind in ("none", "nf4", "int8")
    ]
    assert torch.equal(heads[0], heads[1]) and torch.equal(heads[0], heads[2])


def test_without_bitsandbytes_its_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(RequestError, match=r"loraloom\[quant\]"):
        load_base(str(save_llama(tmp_path, SENTENCES)), "causal_lm", quantization="nf4")


# the layers of bitsandbytes


def linear4bit(weight: torch.Tensor) -> Any:
    layer = bnb.nn.Linear4bit(weight.shape[1], weight.shape[0], False, weight.dtype, quant_type="nf4")
    layer.weight = bnb.nn.Params4bit(weight, quant_type="nf4").to("cpu")
    return layer


def test_a_repacked_layer_spreads_garbage_and_is_refused() -> None:
    torch.manual_seed(0)
    weight = torch.randn(64, 128)
    sound, planted = nn.Sequential(linear4bit(weight)), nn.Sequential(repacked(linear4bit(weight)))
    take_over(sound, torch.float32)
    assert (sound[0].weight - weight).norm() < 0.2 * weight.norm()
    with pytest.raises(ModelError, match="repacked"):
        take_over(planted, torch.float32)


def test_evaluation_before_training_changes_nothing(tmp_path: Path) -> None:
    """Layers of bitsandbytes repack themselves here on some processors; ours have nothing that could."""
    base = load_base(
        str(save_llama(tmp_path, SENTENCES)), "causal_lm", dtype="bfloat16", quantization="nf4"
    )
    before = copy.deepcopy(dict(base.model.named_buffers()))
    ids = torch.arange(1, 13).view(2, 6)
    model = base.model.eval()
    with torch.no_grad():
        first = model(ids).logits
    embedded = model.get_input_embeddings()(ids).detach().requires_grad_()
    model(inputs_embeds=embedded).logits.float().sum().backward()
    assert embedded.grad is not None and embedded.grad.abs().sum() > 0
    with torch.no_grad():
        assert torch.equal(model(ids).logits, first)
    assert all(torch.equal(buffer, before[name]) for name, buffer in base.model.named_buffers())


def test_an_outlier_neighbour_changes_nothing_in_int8() -> None:
    """LLM.int8() takes columns with large numbers of the whole batch in another precision."""
    torch.manual_seed(0)
    layer = eight_bits(torch.randn(48, 32))
    x = torch.randn(2, 3, 32)
    wild = x.clone()
    wild[1] *= 1e4
    assert torch.equal(layer(x)[0], layer(wild)[0])
    assert math.isfinite(float(layer(wild).sum()))
