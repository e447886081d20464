"""Bases in few bits for tests: tiny models quantised on the spot, as loaded by us and
as PEFT has them."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from loraloom.lora.base import share_copy
from loraloom.lora.checkpointing import repeated_blocks
from loraloom.lora.quantised import QuantisedLinear
from loraloom.lora.quantised_loading import take_over

sys.path.insert(0, str(Path(__file__).resolve().parent / "end_to_end"))
from bases import save_llama

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


def repacked(layer: Any) -> Any:
    """What `Linear4bit` becomes in eval on processors with bfloat16 products: its codes in another
    order, for good."""
    convert = bitsandbytes().functional._convert_weight_packed_for_cpu
    layer.weight.data, layer.weight.quant_state = convert(layer.weight.data, layer.weight.quant_state)
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


def packed_words(numbers: torch.Tensor, bits: int) -> torch.Tensor:
    """Numbers [.., n] in words of 32 bits, the first in the lowest bits."""
    grouped = numbers.to(torch.int64).unflatten(-1, (-1, 32 // bits))
    words = (grouped << torch.arange(0, 32, bits)).sum(-1)
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)


def save_gptq(
    folder: Path, sentences: list[str], bits: int, *, version: str = "gptq", shuffled: bool = False
) -> dict[str, Any]:
    """A base in GPTQ's format, with the weight that each layer stands for by the paper's formula."""
    save_llama(folder, sentences, hidden_size=64, intermediate_size=128)
    tensors, meant, group = load_file(folder / "model.safetensors"), dict[str, torch.Tensor](), 32
    for name in [name for name in tensors if name.endswith("proj.weight")]:
        weight = tensors.pop(name)
        d_out, d_in = weight.shape
        groups_D = torch.arange(d_in) // group
        if shuffled:
            groups_D = groups_D[torch.randperm(d_in, generator=torch.Generator().manual_seed(1))]
        codes_DO = torch.randint(0, 2**bits, (d_in, d_out))
        zeros_GO = torch.randint(1, 2**bits, (d_in // group, d_out))
        scales_GO = (torch.rand(d_in // group, d_out) * 0.1).half()
        meant[name] = (scales_GO.float()[groups_D] * (codes_DO - zeros_GO[groups_D])).T
        stem = name.removesuffix("weight")
        tensors[f"{stem}qweight"] = packed_words(codes_DO.T, bits).T.contiguous()
        tensors[f"{stem}qzeros"] = packed_words(zeros_GO - int(version == "gptq"), bits)
        tensors[f"{stem}scales"], tensors[f"{stem}g_idx"] = scales_GO, groups_D.int()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "gptq",
        "bits": bits,
        "group_size": group,
        "checkpoint_format": version,
        "desc_act": shuffled,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return meant
