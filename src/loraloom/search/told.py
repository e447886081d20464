"""What Optuna's samplers are told of a trial that has ended."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from optuna.trial import TrialState

from loraloom.records import EndStatus
from loraloom.search.curves import TrialCurve, leader, standing


@dataclass(frozen=True)
class Teacher:
    """Turns ends into values that a sampler can learn from.

    Attributes:
        base_cost: of the bare base, if known: the worst that a diverged trial can count for.
        censored: the sampler needs a value of pruned trials too.
    """

    base_cost: float | None
    censored: bool

    def told(
        self, curve: TrialCurve, status: EndStatus, cost: float, all_curves: Iterable[TrialCurve]
    ) -> tuple[float | None, TrialState]:
        """Value and state of a trial for Optuna."""
        curves = list(all_curves)
        if status == "completed":
            return cost, TrialState.COMPLETE
        if status == "pruned":
            if self.censored:
                return self._imputed(curve, curves), TrialState.COMPLETE
            return None, TrialState.PRUNED
        floor = self._floor(curves) if status == "diverged" else None
        return (None, TrialState.FAIL) if floor is None else (floor, TrialState.COMPLETE)

    def _imputed(self, curve: TrialCurve, curves: list[TrialCurve]) -> float:
        """Where a pruned trial would probably have ended: as far behind the leader as it was."""
        first = leader([other for other in curves if other is not curve])
        own = standing(curve)
        if first is None or curve.last is None or not math.isfinite(own):
            return self._floor(curves) or 0.0
        return standing(first) + max(own - first.level(curve.last.progress), 0.0)

    def _floor(self, curves: list[TrialCurve]) -> float | None:
        """What a diverged trial counts for: the bare base, else the worst cost seen."""
        if self.base_cost is not None:
            return self.base_cost
        return max((reading.cost for curve in curves for reading in curve.finite), default=None)
