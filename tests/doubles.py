"""Models of transformers in float64 throughout, so that what stays different is ours.

Many of them drop to float32 inside, whatever the dtype of their weights: normalisations, rotary angles, the softmax of
eager attention. There a neighbour's padding shows: a float32 softmax adds up as many columns as the longest row has, and
the order of adding, so the last bit, goes by that number and by the width of the processor's registers.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class DoubleThroughout(TorchFunctionMode):
    """Where transformers' code would narrow float64 to float32, float64 stays. Other code is left alone, ours too."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        named = dict(kwargs or {})
        wide = bool(args) and isinstance(args[0], torch.Tensor) and args[0].dtype == torch.float64
        if wide and _asked_by_transformers():
            if func is torch.Tensor.float:
                return args[0]
            args = tuple(torch.float64 if value is torch.float32 else value for value in args)
            named = {key: torch.float64 if value is torch.float32 else value for key, value in named.items()}
        return func(*args, **named)


def _asked_by_transformers() -> bool:
    """Whether the nearest caller that is not torch itself is."""
    frame = sys._getframe(2)
    while frame is not None and frame.f_globals.get("__name__", "").split(".")[0] == "torch":
        frame = frame.f_back
    return frame is not None and frame.f_globals.get("__name__", "").split(".")[0] == "transformers"
