"""A and B averaged apart, as PEFT's `linear` does: cheap, and the sum only where they share directions.

    A = sum sqrt(w) A_i,  B = sum sqrt(w) B_i     so that  B A  has each w B_i A_i, and mixed products

The mixed products B_i A_j are the error: of unrelated adapters about as large as the update itself.
"""

from __future__ import annotations

from math import copysign, sqrt

import torch
from torch import Tensor

from loraloom.adapters.combine.task import LayerTask
from loraloom.errors import RequestError


def combined(task: LayerTask) -> tuple[Tensor, Tensor]:
    """Raises RequestError for adapters of unequal ranks."""
    ranks = [a.shape[0] for a, _ in task.updates]
    if len(set(ranks)) > 1:
        raise RequestError(
            "linear averages A and B, which needs equal ranks",
            where=task.path,
            got=f"ranks {', '.join(map(str, ranks))}",
            next="--method svd, or cat",
        )
    roots = [sqrt(abs(weight)) for weight in task.weights]
    signed = [copysign(root, weight) for root, weight in zip(roots, task.weights, strict=True)]
    a_NRD = torch.stack([a * root for (a, _), root in zip(task.updates, roots, strict=True)])
    b_NOR = torch.stack([b * root for (_, b), root in zip(task.updates, signed, strict=True)])
    return a_NRD.sum(0), b_NOR.sum(0)
