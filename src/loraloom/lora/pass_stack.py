"""A and B of candidates that are alike, side by side for one pass: one copy for all
layers where each would make its own.

On small models the calls that stack weights and hand out gradients are most of what an
adapter costs beside its products.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

MOST_BYTES = 8 * 2**20
"""Weights and gradients of a pass that are worth it: larger ones leave the caches before they are
read again, so that layers which stack their own (`deltas.OwnStack`) are as fast, and keep nothing."""


@dataclass(frozen=True)
class Place:
    """Where a layer's A [R, D] and B [O, R] begin in a candidate's block."""

    a: int
    b: int
    rank: int
    width: int
    out: int


class PassStack:
    """Blocks of K candidates with the same places, copied into one table.

    Args:
        blocks: of each candidate all A and B, flat [P], in the dtype that layers multiply in.
        grads: of each the gradients, flat [P], in its own dtype.
        places: of each layer, by its number.
    """

    def __init__(
        self, blocks: Sequence[Tensor], grads: Sequence[Tensor], places: Mapping[int, Place]
    ) -> None:
        self.weights_KP = torch.stack(list(blocks))
        self._grads, self._places = grads, places

    @cached_property
    def grads_KP(self) -> Tensor:
        """Made when the first layer is walked backwards."""
        return torch.zeros_like(self.weights_KP)

    def layer(self, number: int) -> LayerViews:
        return LayerViews(self, self._places[number])

    def settle(self) -> None:
        """Add what was gathered to the candidates' own gradients. A pass that fails
        before has changed none of them."""
        gathered = self.__dict__.pop("grads_KP", None)
        if gathered is not None:
            # Added up in the candidates' own dtype as it is read: a copy of all in that dtype would be
            # the most that a pass holds.
            torch._foreach_add_(list(self._grads), gathered.unbind())  # pyright: ignore[reportPrivateImportUsage, reportPrivateUsage]


class LayerViews:
    """One layer's part of a `PassStack`; see `deltas.LayerStack`."""

    def __init__(self, stack: PassStack, place: Place) -> None:
        self._stack, self._place = stack, place
        self.a_KRD, self.b_KRO = self._views(stack.weights_KP)

    def add(self, grad_a_KRD: Tensor, grad_b_KRO: Tensor) -> None:
        a_KRD, b_KRO = self._views(self._stack.grads_KP)
        a_KRD.add_(grad_a_KRD)
        b_KRO.add_(grad_b_KRO)

    def _views(self, table_KP: Tensor) -> tuple[Tensor, Tensor]:
        place, (candidates, pitch) = self._place, table_KP.shape
        a_KRD = table_KP.as_strided(
            (candidates, place.rank, place.width), (pitch, place.width, 1), place.a
        )
        return a_KRD, table_KP.as_strided(
            (candidates, place.rank, place.out), (pitch, 1, place.rank), place.b
        )
