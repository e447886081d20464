"""Kernels of frozen layers: a weight that never changes can be laid out once for the fastest product.

`frozen_kernel(layer)` gives forward and backward for a dense layer in a floating dtype (nn.Linear, Conv1D);
None for anything else (quantised layers), which is then run as it is, under autograd.

On a CPU oneDNN can keep a weight in its own blocked layout, once for x W^T and once for g W. That takes the weight's
memory twice more. Where it pays is known by processor, not measured, so that the same run gives the same bits.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loraloom.lora.function import Frozen

PREPACK_ROWS = 256
"""Number of tokens that a layout is made for; other numbers work as well."""


def frozen_kernel(layer: nn.Module, *, prepack: bool = True) -> Frozen | None:
    """How to run a frozen layer, or None where only the layer itself knows.

    Args:
        prepack: spend twice the weight's memory on oneDNN's layout, where that is faster.
    """
    weight, bias = getattr(layer, "weight", None), getattr(layer, "bias", None)
    if not isinstance(weight, Tensor) or not weight.is_floating_point():
        return None
    if type(layer) is nn.Linear:
        w_OD = weight.detach()
    elif type(layer).__name__ == "Conv1D":
        w_OD = weight.detach().T
    else:
        return None
    bias = None if bias is None else bias.detach()
    if prepack and prepacking_pays(weight.device.type, weight.dtype):
        return _prepacked(w_OD, bias)
    return Frozen(lambda x_ND: F.linear(x_ND, w_OD, bias), lambda gy_NO: gy_NO @ w_OD)


def prepacking_pays(device_type: str, dtype: torch.dtype) -> bool:
    """Whether oneDNN's layout is faster for weights of this dtype on this machine's `device_type`.

    On AMD, MKL's float32 products reach half of oneDNN's; in bfloat16 the layout saves a reorder at every call.
    """
    if device_type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32 and _vendor() == "AuthenticAMD"


def _prepacked(w_OD: Tensor, bias: Tensor | None) -> Frozen:
    ops: Any = torch.ops.mkldnn
    forward = ops._reorder_linear_weight(w_OD.contiguous(), PREPACK_ROWS)
    backward = ops._reorder_linear_weight(w_OD.T.contiguous(), PREPACK_ROWS)
    return Frozen(
        lambda x_ND: ops._linear_pointwise(x_ND, forward, bias, "none", [], ""),
        lambda gy_NO: ops._linear_pointwise(gy_NO, backward, None, "none", [], ""),
    )


@cache
def _vendor() -> str:
    """Maker of the processor as Linux names it; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")), "")
