"""What only several trials together can show: whether a larger rank is worth its parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from loraloom.config import names
from loraloom.diagnose.case import SIGMAS, word
from loraloom.records import Finding, Trial

ACROSS = ("rank-helps", "rank-does-not-help")


def across(trials: Sequence[Trial], metric: str) -> list[Finding]:
    """Compare completed trials that differ in their rank alone, the smaller against one
    at least twice as large.

    Args:
        metric: the deciding metric by its full name; a name that ends in "loss" is better when small.
    """
    done = [
        trial
        for trial in trials
        if trial.status == "completed"
        and trial.tells_of_setting
        and metric in trial.metrics
        and names.R in trial.params
    ]
    pairs = [
        (one, other) for one in done for other in done if _only_rank_grows(one.params, other.params)
    ]
    if not pairs:
        return []
    small, large = max(pairs, key=lambda pair: (pair[1].params[names.R], -pair[0].params[names.R]))
    gain, se = _gain(small, large, metric)
    text = f"{metric} {word(large.metrics[metric])} at r {large.params[names.R]} ({large.id}), "
    text += (
        f"{word(small.metrics[metric])} at r {small.params[names.R]} ({small.id}): {word(gain)} +-"
        f" {word(se)} better"
    )
    if gain > SIGMAS * se:
        larger = {names.R: 2 * int(large.params[names.R])}
        return [
            Finding(
                ACROSS[0], "note", "the adapter is limited by its rank", text, "try a larger one", larger
            )
        ]
    if gain < se:
        return [
            Finding(
                ACROSS[1],
                "note",
                "a larger rank gains nothing",
                text,
                "spend the time on the learning rate instead",
            )
        ]
    return []


def _only_rank_grows(small: Mapping[str, object], large: Mapping[str, object]) -> bool:
    same = all(small.get(key) == large.get(key) for key in {*small, *large} if key != names.R)
    return same and float(str(large[names.R])) >= 2 * float(str(small[names.R]))


def _gain(small: Trial, large: Trial, metric: str) -> tuple[float, float]:
    """By how much the larger is better, and the standard error as if the two were
    scored on different rows."""
    difference = large.metrics[metric] - small.metrics[metric]
    se = math.hypot(*(trial.metrics.get(f"{metric}_se", math.inf) for trial in (small, large)))
    return (-difference if metric.endswith("loss") else difference), se
