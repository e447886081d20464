"""What a method of combining is given for one layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor


@dataclass(frozen=True)
class LayerTask:
    """The updates of one layer.

    Attributes:
        path: of the layer.
        updates: (A [R, D], B [O, R]) of each adapter that changes it, its scale in B.
        weights: of each.
        rank: of the result, where the method chooses one.
        density: share of the numbers that TIES, DARE and KnOTS keep.
        seed: of what DARE drops.
        grams: X X^T [D, D] of the inputs that the layer has in each adapter's task, for RegMean.
    """

    path: str
    updates: Sequence[tuple[Tensor, Tensor]]
    weights: Sequence[float]
    rank: int
    density: float
    seed: int
    grams: Sequence[Tensor] = ()

    @cached_property
    def weighted(self) -> list[tuple[Tensor, Tensor]]:
        """The updates with their weights in B."""
        return [(a, b * weight) for (a, b), weight in zip(self.updates, self.weights, strict=True)]
