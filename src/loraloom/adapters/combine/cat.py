"""Concatenation: the weighted sum of the updates, exact, of the sum of their ranks."""

from __future__ import annotations

from torch import Tensor

from loraloom.adapters.combine.task import LayerTask
from loraloom.adapters.factors import concatenated


def combined(task: LayerTask) -> tuple[Tensor, Tensor]:
    return concatenated(task.weighted)
