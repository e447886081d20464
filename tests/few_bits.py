"""Bases in few bits for tests: tiny models quantised on the spot, as loaded by us and
as PEFT has them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from loraloom.lora.base import share_copy
from loraloom.lora.checkpointing import repeated_blocks
from loraloom.lora.quantised import QuantisedLinear, take_over

KINDS = ("nf4", "int8")


def bitsandbytes() -> Any:
    return pytest.importorskip(
        "bitsandbytes", reason="needs bitsandbytes: pip install 'loraloom[quant]'"
    )


def in_bitsandbytes(model: nn.Module, kind: str) -> Any:
    """A copy whose linear layers inside the blocks are bitsandbytes' own, quantised
    from the model's weights."""
    bnb, changed = bitsandbytes(), copy.deepcopy(model)
    inside = {layer for block in repeated_blocks(changed) for layer in block.modules()}
    for path, layer in list(changed.named_modules()):
        if layer not in inside or type(layer).__name__ not in ("Linear", "Conv1D"):
            continue
        weight: Any = layer.weight if isinstance(layer, nn.Linear) else layer.weight.T  # type: ignore[union-attr]
        changed.set_submodule(path, _layer(bnb, weight.detach(), getattr(layer, "bias", None), kind))
    return changed


def _layer(bnb: Any, weight_OD: Tensor, bias: Any, kind: str) -> nn.Module:
    d_out, d_in = weight_OD.shape
    if kind == "nf4":
        layer = bnb.nn.Linear4bit(d_in, d_out, bias is not None, weight_OD.dtype, quant_type="nf4")
        layer.weight = bnb.nn.Params4bit(
            weight_OD, requires_grad=False, quant_type="nf4", compress_statistics=True
        )
    else:
        layer = bnb.nn.Linear8bitLt(d_in, d_out, bias is not None, has_fp16_weights=False)
        layer.weight = bnb.nn.Int8Params(weight_OD, requires_grad=False, has_fp16_weights=False)
    layer.weight = layer.weight.to("cpu")
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return layer


def quantised(model: nn.Module, kind: str, dtype: torch.dtype = torch.float32) -> Any:
    """The same copy as `load_base` would leave it: our layers over bitsandbytes' codes."""
    changed = in_bitsandbytes(model, kind)
    take_over(changed, torch.float32)
    return changed.to(dtype).eval()


def dense_twin(model: Any) -> Any:
    """The same model with plain layers over the weights that ours spread."""
    twin = share_copy(model)
    for path, layer in list(twin.named_modules()):
        if isinstance(layer, QuantisedLinear):
            plain = nn.Linear(
                layer.in_features, layer.out_features, layer.bias is not None, device="meta"
            )
            plain.weight, plain.bias = nn.Parameter(layer.dense(), requires_grad=False), layer.bias
            twin.set_submodule(path, plain)
    return twin
