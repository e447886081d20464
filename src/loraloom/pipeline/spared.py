"""What is kept of a search that replays rows: the task's own metric decides, and among settings that it
cannot tell from the best, what they forget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from loraloom.config import names
from loraloom.pipeline.job import Record
from loraloom.pipeline.run_log import RunLog
from loraloom.records import Score
from loraloom.search.compare import mean_cost
from loraloom.search.forgetting import by_forgetting, forgets_least

FORGOTTEN = "retain_loss"
"""The metric of a trial that says what it forgets: its loss on rows that are held out for that."""


def look_closer(log: RunLog, completed: Sequence[Record]) -> list[Record]:
    """Candidates of a search, best first, those before others that are as good and forget less. Without
    replay they are left as they are."""
    if not log.prepared.replay or not completed:
        return list(completed)
    by_id = {one.id: one for one in completed}
    costs = {one.id: mean_cost(one.best) if one.best else math.inf for one in completed}
    first = completed[0].best
    error = first.metrics.get("cost_se", 0.0) if first else 0.0
    forgotten = {one.id: one.trial.metrics.get(FORGOTTEN, math.inf) for one in completed}
    return [by_id[trial] for trial in by_forgetting(costs, error, forgotten)]


def spare(log: RunLog, scores: Mapping[str, Mapping[str, Score]], best: str) -> tuple[str, str | None]:
    """The setting to keep, and a sentence where what it forgets has decided.

    Args:
        scores: of each setting, by the trials that were run of it.
        best: the setting that the task's metric keeps.
    """
    if not log.prepared.replay:
        return best, None
    records = log.recorder.records

    def mean_of(setting: str, metric: str) -> float:
        found = [records[trial].trial.metrics.get(metric, math.inf) for trial in scores[setting]]
        return float(np.mean(found))

    forgotten = {setting: mean_of(setting, FORGOTTEN) for setting in scores}
    finals = {setting: tuple(own.values()) for setting, own in scores.items()}
    kept = forgets_least(finals, best, forgotten)
    if kept == best:
        return best, None
    share = records[kept].job.candidate.training.replay_share
    return kept, (
        f"{kept} is kept in place of {best}: it is within one standard error of it, and forgets less:"
        f" loss {forgotten[kept]:.4g} against {forgotten[best]:.4g} on rows that were held out for that"
        f" ({names.REPLAY_SHARE} {share:g})"
    )
