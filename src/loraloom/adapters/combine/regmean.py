"""RegMean (arXiv:2212.09849): the update that does on each task's own inputs what its adapter does.

    minimise  sum_i w_i |(D - D_i) X_i|^2
    D = sum_i w_i D_i G_i (sum_i w_i G_i)^-1        with  G_i = X_i X_i^T

With D_i = B_i A_i no column is left: D is B = [B_1 ... B_n] and A = [A_i w_i G_i (sum G)^-1], of the sum
of the ranks. Tasks whose inputs differ keep what they have learnt, where a plain sum lets each adapter
act on the other's inputs as well.
"""

from __future__ import annotations

import torch
from torch import Tensor

from loraloom.adapters.combine.task import LayerTask
from loraloom.adapters.factors import concatenated
from loraloom.errors import RequestError

RIDGE = 0.01
"""Share of the mean energy of a direction that all tasks get in every direction: where none has inputs,
their updates are averaged."""


def combined(task: LayerTask) -> tuple[Tensor, Tensor]:
    """Raises RequestError where the inputs of the layer are not known."""
    if len(task.grams) != len(task.updates):
        raise RequestError(
            "regmean wants rows of each adapter's task, and the base that reads them",
            next="--model BASE --data A.jsonl --data B.jsonl, in the order of the adapters",
        )
    shares = [weight * _even(gram_DD) for weight, gram_DD in zip(task.weights, task.grams, strict=True)]
    total_DD = torch.stack(shares).sum(0)
    pairs = [
        (torch.linalg.solve(total_DD, share_DD @ a.to(torch.float64).T).T, b.to(torch.float64))
        for share_DD, (a, b) in zip(shares, task.updates, strict=True)
    ]
    return concatenated(pairs)


def _even(gram_DD: Tensor) -> Tensor:
    """With a mean energy of 1, so that no task counts more for having larger inputs, and the ridge."""
    found = gram_DD.to(torch.float64)
    scale = found.diagonal().mean().clamp(min=1e-30)
    return found / scale + RIDGE * torch.eye(len(found), dtype=torch.float64)
