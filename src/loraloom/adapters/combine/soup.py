"""The mean of adapters for one task, from several seeds (model soups, arXiv:2203.05482).

The updates are averaged, not A and B apart, whose columns of different seeds have nothing to do with
each other.
"""

from __future__ import annotations

from torch import Tensor

from loraloom.adapters.combine.task import LayerTask
from loraloom.adapters.factors import concatenated, truncated


def combined(task: LayerTask) -> tuple[Tensor, Tensor]:
    count = len(task.updates)
    shared = [(a, b / count) for a, b in task.weighted]
    return truncated(*concatenated(shared), task.rank)
