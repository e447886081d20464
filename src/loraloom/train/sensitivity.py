"""How much each direction of an adapter matters to the loss while it trains: AdaLoRA's score
(Zhang et al., arXiv:2303.10512, equations 8 to 12) of the rows of A and columns of B.

Shapes: O features out, D features in, R rank.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from loraloom.train.signals import Gauge, pairs

if TYPE_CHECKING:
    from loraloom.lora.packed import PackedModel
    from loraloom.train.seat import Seat

BETA = 0.85
"""How much of the smoothed sensitivity, and of its uncertainty, stays at each step: the paper's."""


class Sensitivity(Gauge):
    """A gauge that also smooths |weight * gradient| of one candidate, as the trainer shows it each step.

    A weight's score is its smoothed sensitivity times how much that varied; a direction's, the mean over
    its row of A plus the mean over its column of B: the score that the paper gives a triplet, without
    the singular value that plain LoRA does not have.
    """

    def __init__(self, packed: PackedModel, share: str) -> None:
        super().__init__(packed, share)
        self._smoothed: Tensor | None = None
        self._uncertainty: Tensor | None = None

    def stepped(self, seat: Seat, loss: float, norm: float, rate: float) -> None:
        super().stepped(seat, loss, norm, rate)
        arena = seat.adapter.arena
        sensitivity = (arena.weights * arena.grads).abs().double().nan_to_num(0.0)
        if self._smoothed is None or self._uncertainty is None:
            self._smoothed = torch.zeros_like(sensitivity)
            self._uncertainty = torch.zeros_like(sensitivity)
        self._smoothed.lerp_(sensitivity, 1 - BETA)
        self._uncertainty.lerp_((sensitivity - self._smoothed).abs(), 1 - BETA)

    def scores(self, seat: Seat) -> dict[str, list[float]]:
        """The score of each direction, by path of the layer; empty before the first step."""
        if self._smoothed is None or self._uncertainty is None:
            return {}
        a_by_path, b_by_path = pairs(seat.adapter, (self._smoothed * self._uncertainty).cpu())
        return {
            path: (a_RD.mean(1) + b_by_path[path].mean(0)).tolist() for path, a_RD in a_by_path.items()
        }
