"""Which settings mattered for the quality of a run's candidates."""

from __future__ import annotations

import math
from typing import Any

from loraloom.search.importance import Importance, importance
from loraloom.store.result import RunResult


def importance_of(*results: RunResult) -> Importance:
    """Over all candidates of runs with one metric. Pruned ones count with their last score, diverged and
    failed ones as the worst; those that say nothing of their setting do not count.
    """
    candidates: list[tuple[dict[str, Any], float]] = []
    for result in results:
        sign = 1 if result.direction == "minimize" else -1
        for trial in result.trials:
            value = math.inf if trial.status in ("diverged", "failed") else sign * result.value(trial)
            ended = trial.status not in ("running", "waiting") and not math.isnan(value)
            if trial.params and ended and trial.tells_of_setting:
                candidates.append((dict(trial.params), value))
    return importance(candidates)
