"""How transformers is told to load a base in few bits, and our layers put over what it loaded.

A full base is quantised while it is read, by bitsandbytes. A folder that is in few bits already is read
as it is, where its codes can be: bitsandbytes in 4 and 8 bits, torchao in 8, GPTQ. transformers reads
GPTQ with packages for a GPU; here its codes are buffers of our own layers, which need nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache, partial
from importlib.util import find_spec
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from loraloom.errors import ModelError, RequestError
from loraloom.lora.checkpointing import repeated_blocks
from loraloom.lora.full_weights import FullWeights, is_same
from loraloom.lora.quantised import (
    GPTQ_BITS,
    FourBitLinear,
    GptqLinear,
    Int8Linear,
    QuantisedLinear,
    bitsandbytes,
)

READABLE = "bitsandbytes in 4 or 8 bits, torchao in 8 bits, GPTQ in 2, 4 or 8 bits, or the full weights"
OUR_GPTQ = "loraloom_gptq"
"""The name by which transformers finds our way to read GPTQ."""


def stored_in(config: Any) -> str | None:
    """The method that a base's own files are quantised by, as its config says; None for full weights.

    Raises:
        ModelError: codes that cannot be read here.
    """
    found = getattr(config, "quantization_config", None)
    if found is None:
        return None
    stated: Mapping[str, Any] = found if isinstance(found, dict) else found.to_dict()
    method = str(stated.get("quant_method") or "bitsandbytes")
    bits, kind = stated.get("bits"), str(stated.get("quant_type"))
    readable = {
        "bitsandbytes": True,
        "torchao": "int8" in kind.lower(),
        "gptq": bits in GPTQ_BITS,
    }
    if not readable.get(method, False):
        raise ModelError(
            f"the weights of this base are quantised by {method}, which cannot be read here",
            got=kind if method == "torchao" else f"{bits} bits" if bits else None,
            need=READABLE,
            next="take the base that it was made from, with model.quantization: nf4 or int8",
        )
    return method


def kind_of_stored(config: Any, method: str) -> str:
    """Method and bits of a base whose own files are quantised: "bitsandbytes nf4", "gptq int4"."""
    found = config.quantization_config
    stated: Mapping[str, Any] = found if isinstance(found, dict) else found.to_dict()
    if method == "gptq":
        return f"{method} int{stated['bits']}"
    if method == "bitsandbytes" and stated.get("load_in_4bit"):
        return f"{method} {stated.get('bnb_4bit_quant_type', 'fp4')}"
    return f"{method} int8"


def options_for_stored(config: Any, method: str, device: str) -> dict[str, Any]:
    """What `from_pretrained` is given to read a base that is quantised already."""
    require_reader(method, device)
    if method == "gptq":
        _register_gptq()
        config.quantization_config = {**config.quantization_config, "quant_method": OUR_GPTQ}
    return {"device_map": {"": device}}


def require_reader(method: str, device: str) -> None:
    """Ask for the package that reads what `method` has quantised.

    Raises:
        RequestError: it is not installed, or has nothing for this device.
    """
    if method == "bitsandbytes":
        bitsandbytes(device)
    if method == "torchao" and find_spec("torchao") is None:
        raise RequestError(
            "the weights of this base are torchao's",
            got="no package of that name",
            need="the package torchao",
            next="pip install torchao",
        )


def options_for_full(
    quantization: str, kept: Sequence[str], dtype: torch.dtype, device: str
) -> dict[str, Any]:
    """What `from_pretrained` is given to quantise the linear layers of a full base that are not kept.

    Args:
        quantization: "nf4" or "int8".
    """
    import transformers

    bitsandbytes(device)
    config = transformers.BitsAndBytesConfig(
        load_in_4bit=quantization == "nf4",
        load_in_8bit=quantization == "int8",
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        # As patterns of whole names: transformers takes a plain name for the end of any other.
        llm_int8_skip_modules=[f"{re.escape(name)}$" for name in kept],
    )
    return {"quantization_config": config, "device_map": {"": device}}


def linears_outside_blocks(auto: Any, config: Any, *, trust_remote_code: bool) -> tuple[str, ...]:
    """Paths of the linear layers that stay as they are: heads, poolers."""
    with torch.device("meta"):
        model: nn.Module = auto.from_config(config, trust_remote_code=trust_remote_code)
    inside = {module for block in repeated_blocks(model) for module in block.modules()}
    found = ((name, module) for name, module in model.named_modules() if module not in inside)
    return tuple(name for name, module in found if _is_linear(module))


def _is_linear(module: nn.Module) -> bool:
    return type(module) is nn.Linear or type(module).__name__ == "Conv1D"


# -- what was loaded ---------------------------------------------------------------------------------


def take_over(model: nn.Module, dtype: torch.dtype) -> None:
    """Put a layer of ours over the same codes in place of each of another package.

    Nothing may have run yet.

    Raises:
        ModelError: codes in another order than they were stored in, because their layer has run, or of a
            kind that is not known.
    """
    for path, layer in list(model.named_modules()):
        weight = getattr(layer, "weight", None)
        if type(layer).__module__.startswith("bitsandbytes."):
            model.set_submodule(path, _from_bitsandbytes(path, layer, dtype))
        elif type(getattr(weight, "data", None)).__module__.startswith("torchao."):
            model.set_submodule(path, _from_torchao(path, layer, dtype))
    # It is a plain model now: transformers and PEFT would look for the layers that they know by these.
    for name in (
        "hf_quantizer",
        "quantization_method",
        "is_quantized",
        "is_loaded_in_4bit",
        "is_loaded_in_8bit",
    ):
        vars(model).pop(name, None)
    for part in model.modules():
        if (config := getattr(part, "config", None)) is not None:
            vars(config).pop("quantization_config", None)
            vars(config).pop("_is_quantized", None)


def rest_in(model: nn.Module, dtype: torch.dtype) -> None:
    """Hold what is not in codes in `dtype`: of a base that is stored in codes, transformers leaves
    embeddings, head and norms as they are stored."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


def _from_bitsandbytes(path: str, layer: Any, dtype: torch.dtype) -> QuantisedLinear:
    weight, name = layer.weight, type(layer).__name__
    if name == "Linear4bit":
        if getattr(weight.quant_state, "packing_format_for_cpu", False):
            raise ModelError(
                f"the codes of `{path}` are not as they were stored",
                got="a layer that bitsandbytes repacked when it ran",
                need="codes in their own order: this one's cannot be brought back without loss",
                next="load the base again",
            )
        return FourBitLinear(weight.data, weight.quant_state, layer.bias, dtype)
    if name == "Linear8bitLt":
        # bitsandbytes keeps the largest size of each row, which is code 127.
        return Int8Linear(weight.data, weight.SCB / 127, layer.bias, dtype)
    raise ModelError(
        f"`{path}` cannot be trained over",
        got=f"a {name} of bitsandbytes",
        need="its 4-bit or 8-bit linear layers",
        next="take the model without its own quantisation",
    )


def _from_torchao(path: str, layer: Any, dtype: torch.dtype) -> QuantisedLinear:
    weight: Any = layer.weight.data
    absent = torch.empty(0)
    codes, scale = getattr(weight, "qdata", absent), getattr(weight, "scale", absent)
    d_out = weight.shape[0]
    if codes.dtype != torch.int8 or codes.shape != weight.shape or scale.numel() != d_out:
        raise ModelError(
            f"the codes of `{path}` cannot be read here",
            got=f"a {type(weight).__name__} of torchao",
            need="torchao's int8 with one scale a row",
            next="take the base that it was made from, with model.quantization: int8",
        )
    return Int8Linear(codes, scale.reshape(-1), layer.bias, dtype)


def remember_full_weights(model: nn.Module, weights: FullWeights) -> None:
    """Let each layer in few bits know the weight that its codes were made of."""
    for path, layer in model.named_modules():
        if isinstance(layer, QuantisedLinear):
            layer.full_weight = partial(weights.of, path, (layer.out_features, layer.in_features))


# -- GPTQ --------------------------------------------------------------------------------------------


@cache
def _register_gptq() -> None:
    """Teach transformers to read GPTQ's codes into our layers; once."""
    from transformers.quantizers.auto import register_quantization_config, register_quantizer
    from transformers.quantizers.base import HfQuantizer
    from transformers.utils.quantization_config import QuantizationConfigMixin

    class GptqConfig(QuantizationConfigMixin):
        def __init__(self, bits: int, checkpoint_format: str = "gptq", **others: Any) -> None:
            self.quant_method: Any = OUR_GPTQ
            self.bits, self.first_zero = bits, 0 if checkpoint_format == "gptq_v2" else 1

    class GptqQuantizer(HfQuantizer):
        def _process_model_before_weight_loading(self, model: nn.Module, **kwargs: Any) -> None:
            config: Any = self.quantization_config
            for path, groups in _coded(kwargs.get("checkpoint_files") or ()).items():
                name = next((name for name, _ in model.named_modules() if is_same(name, path)), None)
                if name is not None:
                    layer: Any = model.get_submodule(name)
                    ours = GptqLinear(layer, config.bits, groups, config.first_zero)
                    model.set_submodule(name, ours)

        def is_serializable(self) -> Any:
            return False

        @property
        def is_trainable(self) -> Any:
            return True

    register_quantization_config(OUR_GPTQ)(GptqConfig)
    register_quantizer(OUR_GPTQ)(GptqQuantizer)


def _coded(files: Sequence[str]) -> dict[str, int]:
    """Layers of a checkpoint that have codes, each with its number of groups."""
    found: dict[str, int] = {}
    for place in files:
        with safe_open(place, framework="pt") as file:  # pyright: ignore[reportUnknownVariableType]
            for key in file.keys():  # noqa: SIM118
                if key.endswith(".scales"):
                    found[key.removesuffix(".scales")] = file.get_slice(key).get_shape()[0]
    return found
