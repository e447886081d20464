"""TIES (arXiv:2306.01708): keep the largest numbers of each update, agree on each sign, average those
that have it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from loraloom.adapters.combine.task import LayerTask
from loraloom.adapters.factors import approximated


def combined(task: LayerTask) -> tuple[Tensor, Tensor]:
    dense = [b @ a for a, b in task.updates]
    return approximated(elected(dense, task.weights, task.density), task.rank)


def elected(updates: Sequence[Tensor], weights: Sequence[float], density: float) -> Tensor:
    """The mean of the trimmed and weighted updates that agree with the sign of their sum, each number
    for itself; so updates that do not meet stay as large as they were."""
    trimmed = torch.stack([trim(update, density) for update in updates])
    weighted = trimmed * torch.tensor(list(weights)).to(trimmed).view(-1, *([1] * updates[0].ndim))
    agrees = (weighted.sign() == weighted.sum(0).sign()) & (weighted != 0)
    return (weighted * agrees).sum(0) / agrees.sum(0).clamp(min=1)


def trim(update: Tensor, density: float) -> Tensor:
    """The share of the numbers that is largest in size; the others are 0."""
    count = max(1, round(density * update.numel()))
    least = update.abs().flatten().kthvalue(update.numel() - count + 1).values
    return torch.where(update.abs() >= least, update, 0.0)
