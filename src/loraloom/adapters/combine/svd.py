"""The weighted sum of the updates, cut to the best product of a smaller rank."""

from __future__ import annotations

from torch import Tensor

from loraloom.adapters.combine.task import LayerTask
from loraloom.adapters.factors import concatenated, truncated


def combined(task: LayerTask) -> tuple[Tensor, Tensor]:
    return truncated(*concatenated(task.weighted), task.rank)
