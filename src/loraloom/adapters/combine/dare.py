"""DARE (arXiv:2311.03099): drop numbers of each update at random, scale the rest up, add."""

from __future__ import annotations

import torch
from torch import Tensor

from loraloom.adapters.combine.task import LayerTask
from loraloom.adapters.factors import approximated
from loraloom.lora.init import named_seed


def combined(task: LayerTask) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(named_seed(task.seed, task.path))
    total: Tensor | None = None
    for a, b in task.weighted:
        update = b @ a
        kept = torch.rand(update.shape, generator=random) < task.density
        sparse = torch.where(kept, update / task.density, 0.0)
        total = sparse if total is None else total + sparse
    assert total is not None  # a layer without an update is not asked for
    return approximated(total, task.rank)
