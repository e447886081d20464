"""Models of transformers in float64 throughout, so that what stays different is ours.

Many of them drop to float32 inside, whatever the dtype of their weights: normalisations, rotary angles,
routers of mixtures, the softmax of eager attention. There a neighbour's padding shows: a float32 softmax
adds up as many columns as the longest row has, and the order of adding, so the last bit, goes by that
number and by the width of the processor's registers.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch


def keep_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where transformers' code would narrow float64 to float32, float64 stays. Other
    code is left alone, ours too."""
    for home, name in (
        (torch.Tensor, "float"),
        (torch.Tensor, "to"),
        (torch.Tensor, "type"),
        (torch.nn.functional, "softmax"),
    ):
        monkeypatch.setattr(home, name, _wide(getattr(home, name), narrows=name == "float"))
    monkeypatch.setattr(torch.Tensor, "__matmul__", _promoting(torch.Tensor.__matmul__))


def _wide(method: Callable[..., Any], *, narrows: bool) -> Callable[..., Any]:
    def wide(x: torch.Tensor, *args: Any, **named: Any) -> Any:
        if x.dtype == torch.float64 and sys._getframe(1).f_globals.get("__name__", "").startswith(
            "transformers."
        ):
            if narrows:
                return x
            args = tuple(torch.float64 if value is torch.float32 else value for value in args)
            named = {
                key: torch.float64 if value is torch.float32 else value for key, value in named.items()
            }
        return method(x, *args, **named)

    return wide


def _promoting(product: Callable[..., Any]) -> Callable[..., Any]:
    """Frequencies that stayed float64 times positions, which are integers made float32: older versions
    of transformers multiply the two as matrices, which takes one dtype."""

    def promoted(x: torch.Tensor, y: torch.Tensor) -> Any:
        return product(x, y.double() if x.dtype == torch.float64 and y.dtype == torch.float32 else y)

    return promoted
