"""Kernels of frozen layers: a weight that never changes can be used without keeping its input.

`frozen_kernel(layer)` gives forward and backward for a dense layer in a floating dtype (nn.Linear, Conv1D);
None for anything else (quantised layers), which is then run as it is, under autograd.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from loraloom.lora.function import Frozen


def frozen_kernel(layer: nn.Module) -> Frozen | None:
    weight, bias = getattr(layer, "weight", None), getattr(layer, "bias", None)
    if not isinstance(weight, Tensor) or not weight.is_floating_point():
        return None
    if type(layer) is nn.Linear:
        return Frozen(lambda x_ND: F.linear(x_ND, weight, bias), lambda gy_NO: gy_NO @ weight)
    if type(layer).__name__ == "Conv1D":
        return Frozen(lambda x_ND: F.linear(x_ND, weight.T, bias), lambda gy_NO: gy_NO @ weight.T)
    return None
