"""Comparing candidates row by row: mean costs and paired differences, with their standard errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from loraloom.records import Score

Floats: TypeAlias = NDArray[np.float64]

CONFIDENCE = 2.0
"""Standard errors on each side of a difference: an interval of about 95%."""


@dataclass(frozen=True)
class Difference:
    """Mean cost of one candidate minus that of another, with its standard error; `rows` counts the
    independent draws behind it (clusters of rows), and is 0 where rows were not paired."""

    mean: float
    se: float
    rows: int

    @property
    def low(self) -> float:
        return self.mean - CONFIDENCE * self.se

    @property
    def high(self) -> float:
        return self.mean + CONFIDENCE * self.se


def mean_cost(score: Score) -> float:
    """sum(costs * weights) / sum(weights), or `metrics["loss"]` where the rows are not
    at hand; nan where neither is."""
    if not score.costs:
        return score.metrics.get("cost", score.metrics.get("loss", math.nan))
    costs, weights = rows(score)
    return float(np.dot(costs, weights) / weights.sum())


def standard_error(score: Score) -> float:
    """Standard error of the mean cost over rows, or `metrics["loss_se"]` where the rows
    are not at hand."""
    if not score.costs:
        return score.metrics.get("cost_se", score.metrics.get("loss_se", 0.0))
    costs, weights = rows(score)
    return ratio(costs, weights, score.clusters).se


def rows(score: Score) -> tuple[Floats, Floats]:
    """Costs and weights as arrays of shape [rows]; a score without weights weighs each row 1."""
    costs = np.asarray(score.costs, dtype=np.float64)
    return costs, np.asarray(score.weights, dtype=np.float64) if score.weights else np.ones_like(costs)


def ratio(values: Floats, weights: Floats, clusters: Sequence[int] = ()) -> Difference:
    """Weighted mean of `values` [rows] and its standard error: `ratio_of_sums` of what they weigh."""
    return ratio_of_sums(values * weights, weights, clusters)


def ratio_of_sums(sums: Floats, weights: Floats, clusters: Sequence[int] = ()) -> Difference:
    """sum(sums) / sum(weights), both [rows], and its standard error, each cluster of rows one draw.

    Rows, not tokens, are the independent draws: tokens of a row rise and fall together. Nor are the
    windows of one document: where `clusters` [rows] says what belongs together, that is summed first.
    The standard error is that of a ratio estimator (Cochran, Sampling Techniques, 3rd ed., section 6.3,
    without the finite population correction): sqrt(n / (n - 1) * sum((s - mean w)^2)) / sum(w). It is
    infinite for a single row, and where the mean is not finite; the mean of rows that weigh nothing is
    nan.
    """
    if len(clusters):
        _, owner = np.unique(np.asarray(clusters), return_inverse=True)
        sums = np.bincount(owner, sums).astype(np.float64)
        weights = np.bincount(owner, weights).astype(np.float64)
    total = float(weights.sum())
    mean = float(sums.sum()) / total if total else math.nan
    if len(sums) < 2 or not math.isfinite(mean):
        return Difference(mean, math.inf, len(sums))
    residuals = sums - mean * weights
    spread = math.sqrt(len(sums) / (len(sums) - 1) * float(np.dot(residuals, residuals)))
    return Difference(mean, spread / total, len(sums))


def paired_difference(ours: Score, theirs: Score) -> Difference:
    """Mean cost of `ours` minus `theirs`: below 0 where ours is better.

    Without rows on both sides the two standard errors are added as if independent: wider than the truth,
    for the same rows are hard or easy for both.

    Raises:
        ValueError: the two were not scored on the same rows.
    """
    if not ours.costs or not theirs.costs:
        return Difference(
            mean_cost(ours) - mean_cost(theirs),
            math.hypot(standard_error(ours), standard_error(theirs)),
            0,
        )
    if len(ours.costs) != len(theirs.costs) or not _same(ours.weights, theirs.weights):
        raise ValueError(
            f"scores of different rows cannot be paired: {len(ours.costs)} rows of {ours.split} and "
            f"{len(theirs.costs)} rows of {theirs.split}, or other weights"
        )
    (a, weights), (b, _) = rows(ours), rows(theirs)
    return ratio(a - b, weights, ours.clusters)


def _same(ours: Sequence[float], theirs: Sequence[float]) -> bool:
    return ours is theirs or tuple(ours) == tuple(theirs)


def seeds_difference(ours: Sequence[Score], theirs: Sequence[Score]) -> Difference:
    """The paired difference over several seeds, seed by seed on the same rows.

    Its variance is that of the rows (of each row's cost averaged over the seeds) plus that of the seeds.
    With three seeds it finds a difference of about 1.5 standard deviations of a seed and nothing
    smaller.

    Raises:
        ValueError: no seeds, not the same number of seeds on both sides, or not the same rows.
    """
    if not ours or len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} seeds cannot be paired with {len(theirs)}")
    each = [paired_difference(a, b) for a, b in zip(ours, theirs, strict=True)]
    if len(each) == 1:
        return each[0]
    means = np.asarray([difference.mean for difference in each])
    over_rows = paired_difference(average(ours), average(theirs))
    over_seeds = float(means.std(ddof=1)) / math.sqrt(len(each))
    return Difference(float(means.mean()), math.hypot(over_rows.se, over_seeds), over_rows.rows)


def average(scores: Sequence[Score]) -> Score:
    """One score of several seeds: each row's cost, and each metric, averaged. A single
    score is returned as it is."""
    if len(scores) == 1:
        return scores[0]
    names = set[str].intersection(*(set(score.metrics) for score in scores))
    metrics = {
        name: sum(score.metrics[name] for score in scores) / len(scores) for name in sorted(names)
    }
    if not all(score.costs for score in scores):
        return Score(scores[0].split, metrics)
    costs = np.mean([score.costs for score in scores], axis=0)
    return replace(scores[0], metrics=metrics, costs=tuple(float(cost) for cost in costs))
