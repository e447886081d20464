"""Optuna's pruners by name: asha, hyperband, median.

They compare at equal steps, so they are told progress in percent. What to know before choosing one:

- median reads completed trials only: the first packed wave is never pruned.
- asha compares with those that came before: the order of reports matters, and the first
  at a rung always pass.
- hyperband splits the trials over brackets by chance and needs about 10 in each to prune anything.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from loraloom.search.curves import TrialCurve
from loraloom.search.pruners.pruner import NeverPauses, Pruner, PrunerInputs
from loraloom.search.values import Verdict

if TYPE_CHECKING:
    from optuna.pruners import BasePruner

PERCENT = 100
FIRST_RUNG = 25
HALVING = 2
HYPERBAND_FACTOR = 3
TRIALS_PER_BRACKET = 10
MAX_BRACKETS = 3
MEDIAN_STARTUP = 5


def asha(inputs: PrunerInputs) -> Pruner:
    """Half go at a quarter, and half of the rest at a half."""
    from optuna.pruners import SuccessiveHalvingPruner

    pruner = SuccessiveHalvingPruner(min_resource=FIRST_RUNG, reduction_factor=HALVING)
    return OptunaPruner("asha", pruner, inputs)


def hyperband(inputs: PrunerInputs) -> Pruner:
    """Thirds, in as many brackets (3 at most) as 10 trials each allow; the smallest
    rung follows from their number."""
    from optuna.pruners import HyperbandPruner

    brackets = min(max(inputs.trials // TRIALS_PER_BRACKET, 1), MAX_BRACKETS)
    pruner = HyperbandPruner(
        min_resource=math.ceil(PERCENT / HYPERBAND_FACTOR**brackets),
        max_resource=PERCENT,
        reduction_factor=HYPERBAND_FACTOR,
    )
    return OptunaPruner("hyperband", pruner, inputs)


def median(inputs: PrunerInputs) -> Pruner:
    """Worse than the median of completed trials at the same progress, from a quarter on."""
    from optuna.pruners import MedianPruner

    startup = min(MEDIAN_STARTUP, max(inputs.trials // 3, 1))
    pruner = MedianPruner(n_startup_trials=startup, n_warmup_steps=FIRST_RUNG)
    return OptunaPruner("median", pruner, inputs)


class OptunaPruner(NeverPauses):
    """One of Optuna's pruners, asked once for each new reading and in the order of the trials' ids.

    It is held apart from the study: a study that knows of Hyperband splits its
    sampler's history over the brackets too.
    """

    def __init__(self, name: str, pruner: BasePruner, inputs: PrunerInputs) -> None:
        self._name, self._pruner = name, pruner
        self._study, self._running = inputs.study, inputs.running
        self._asked: dict[str, int] = {}

    def verdicts(self, curves: Sequence[TrialCurve], coming: int = 0) -> list[Verdict]:
        """The trials to prune among those with a new reading; the plan's own setting runs to its end."""
        fresh = [
            c
            for c in curves
            if c.unfinished and not c.protected and len(c.readings) > self._asked.get(c.id, 0)
        ]
        found: list[Verdict] = []
        for curve in fresh:
            self._asked[curve.id] = len(curve.readings)
            last = curve.readings[-1]
            # Asked for anew each time: what the pruner notes on a trial of the study
            # does not show in an older copy.
            if last.finite and self._pruner.prune(
                self._study, self._study.get_trials(deepcopy=False)[self._running[curve.id].number]
            ):
                reason = (
                    f"at {last.progress:.0%} of its steps its validation cost of {last.cost:.4g} fell"
                    f" behind ({self._name})"
                )
                found.append(Verdict(curve.id, "prune", reason, last.step))
        return found
