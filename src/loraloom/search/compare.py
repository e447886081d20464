"""Comparing candidates row by row: paired differences with their standard errors, and whether there is a winner at all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from loraloom.records import Score

Floats: TypeAlias = NDArray[np.float64]

CONFIDENCE = 2.0
"""Standard errors on each side of a difference: an interval of about 95%."""


@dataclass(frozen=True)
class Difference:
    """Mean cost of one candidate minus that of another, with its standard error; `rows` is 0 where rows were not paired."""

    mean: float
    se: float
    rows: int

    @property
    def low(self) -> float:
        return self.mean - CONFIDENCE * self.se

    @property
    def high(self) -> float:
        return self.mean + CONFIDENCE * self.se


@dataclass(frozen=True)
class Winner:
    """The candidate to keep.

    Attributes:
        id: the leader where it beats the default for certain, else the default or a cheaper one that is no worse.
        significant: whether a candidate beats the default for certain, by at least the practical step.
        ties: the others that cannot be told from the leader, cheapest first.
        sentence: the verdict with its numbers.
    """

    id: str
    significant: bool
    ties: tuple[str, ...]
    sentence: str


def mean_cost(score: Score) -> float:
    """sum(costs * weights) / sum(weights), or `metrics["loss"]` where the rows are not at hand; nan where neither is."""
    if not score.costs:
        return score.metrics.get("cost", score.metrics.get("loss", math.nan))
    costs, weights = rows(score)
    return float(np.dot(costs, weights) / weights.sum())


def standard_error(score: Score) -> float:
    """Standard error of the mean cost over rows, or `metrics["loss_se"]` where the rows are not at hand."""
    if not score.costs:
        return score.metrics.get("cost_se", score.metrics.get("loss_se", 0.0))
    costs, weights = rows(score)
    return ratio(costs, weights).se


def rows(score: Score) -> tuple[Floats, Floats]:
    """Costs and weights as arrays of shape [rows]; a score without weights weighs each row 1."""
    costs = np.asarray(score.costs, dtype=np.float64)
    return costs, np.asarray(score.weights, dtype=np.float64) if score.weights else np.ones_like(costs)


def ratio(values: Floats, weights: Floats) -> Difference:
    """Weighted mean of `values` [rows] and its standard error, each row one cluster: `ratio_of_sums` of what they weigh."""
    return ratio_of_sums(values * weights, weights)


def ratio_of_sums(sums: Floats, weights: Floats) -> Difference:
    """sum(sums) / sum(weights), both [rows], and its standard error, each row one cluster.

    Rows, not tokens, are the independent draws: tokens of a row rise and fall together. The standard error is that of a ratio
    estimator (Cochran, Sampling Techniques, 3rd ed., section 6.3, without the finite population correction):
    sqrt(n / (n - 1) * sum((s - mean w)^2)) / sum(w). It is infinite for a single row, and where the mean is not finite; the
    mean of rows that weigh nothing is nan.
    """
    total = float(weights.sum())
    mean = float(sums.sum()) / total if total else math.nan
    if len(sums) < 2 or not math.isfinite(mean):
        return Difference(mean, math.inf, len(sums))
    residuals = sums - mean * weights
    spread = math.sqrt(len(sums) / (len(sums) - 1) * float(np.dot(residuals, residuals)))
    return Difference(mean, spread / total, len(sums))


def paired_difference(ours: Score, theirs: Score) -> Difference:
    """Mean cost of `ours` minus `theirs`: below 0 where ours is better.

    Without rows on both sides the two standard errors are added as if independent: wider than the truth, for the same rows
    are hard or easy for both.

    Raises:
        ValueError: the two were not scored on the same rows.
    """
    if not ours.costs or not theirs.costs:
        return Difference(mean_cost(ours) - mean_cost(theirs), math.hypot(standard_error(ours), standard_error(theirs)), 0)
    if len(ours.costs) != len(theirs.costs) or not _same(ours.weights, theirs.weights):
        raise ValueError(
            f"scores of different rows cannot be paired: {len(ours.costs)} rows of {ours.split} and "
            f"{len(theirs.costs)} rows of {theirs.split}, or other weights"
        )
    (a, weights), (b, _) = rows(ours), rows(theirs)
    return ratio(a - b, weights)


def _same(ours: Sequence[float], theirs: Sequence[float]) -> bool:
    return ours is theirs or tuple(ours) == tuple(theirs)


def seeds_difference(ours: Sequence[Score], theirs: Sequence[Score]) -> Difference:
    """The paired difference over several seeds, seed by seed on the same rows.

    Its variance is that of the rows (of each row's cost averaged over the seeds) plus that of the seeds. With three seeds it
    finds a difference of about 1.5 standard deviations of a seed and nothing smaller.

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
    """One score of several seeds: each row's cost, and each metric, averaged. A single score is returned as it is."""
    if len(scores) == 1:
        return scores[0]
    names = set[str].intersection(*(set(score.metrics) for score in scores))
    metrics = {name: sum(score.metrics[name] for score in scores) / len(scores) for name in sorted(names)}
    if not all(score.costs for score in scores):
        return Score(scores[0].split, metrics)
    costs = np.mean([score.costs for score in scores], axis=0)
    return Score(scores[0].split, metrics, tuple(float(cost) for cost in costs), scores[0].weights)


def pick_winner(
    scores: Mapping[str, Score | Sequence[Score]],
    cheapness: Mapping[str, float],
    default_id: str,
    practical: float = 0.005,
    called: str = "the default",
) -> Winner:
    """The finalist to keep, and whether its lead over the default is more than noise.

    There is no significant winner where the interval of leader minus default holds 0, or the gain is smaller than the
    practical step. Then the default is kept, unless a cheaper tie is surely no worse than it by more than that step.

    Args:
        scores: by trial id, one score or one for each seed (the same seeds for all, in the same order).
        cheapness: by trial id, what a candidate costs to keep (trainable parameters): less is better.
        default_id: the plan's own setting; it must be among the scores.
        practical: the smallest gain worth having, as a share of the default's cost.
        called: what the sentence calls the default, where another candidate stands for it.

    Raises:
        ValueError: the default was not scored, or the scores cannot be paired.
    """
    if default_id not in scores:
        raise ValueError(f"the default {default_id} is not among the scores of {', '.join(scores)}")
    runs = {trial: (score,) if isinstance(score, Score) else tuple(score) for trial, score in scores.items()}
    means = {trial: mean_cost(average(run)) for trial, run in runs.items()}
    step = practical * abs(means[default_id])

    def order(trial: str) -> tuple[float, bool, float, str]:
        return cheapness.get(trial, math.inf), trial != default_id, means[trial], trial

    leader = min(means, key=lambda trial: (means[trial], trial != default_id, cheapness.get(trial, math.inf), trial))
    lead = seeds_difference(runs[leader], runs[default_id])
    ties = sorted((trial for trial in runs if trial != leader and _tied(runs[trial], runs[leader], step)), key=order)
    if leader != default_id and lead.high < 0 and -lead.mean >= step:
        gain = f"{-lead.mean:.4g} +- {CONFIDENCE * lead.se:.2g}"
        sentence = f"{leader} beats {called} {default_id}: {means[leader]:.4g} against {means[default_id]:.4g}, a gain of {gain}"
        return Winner(leader, True, tuple(ties), _with_ties(sentence, ties))

    def no_worse(trial: str) -> bool:
        cheaper = cheapness.get(trial, math.inf) < cheapness.get(default_id, math.inf)
        return cheaper and seeds_difference(runs[trial], runs[default_id]).high < step

    kept = min((trial for trial in (default_id, leader, *ties) if trial == default_id or no_worse(trial)), key=order)
    others = sorted({leader, *ties, default_id} - {kept}, key=order)
    return Winner(kept, False, tuple(others), _no_winner(kept, leader, f"{called} {default_id}", lead, step, others))


def _tied(run: Sequence[Score], leader: Sequence[Score], step: float) -> bool:
    gap = seeds_difference(run, leader)
    return gap.low <= 0 or gap.mean < step


def _no_winner(kept: str, leader: str, default: str, lead: Difference, step: float, others: Sequence[str]) -> str:
    called, _, default_id = default.rpartition(" ")
    if leader == default_id:
        why = f"no candidate is better than {default}"
    elif lead.high >= 0:
        why = f"{leader} leads {default} by {-lead.mean:.4g} +- {CONFIDENCE * lead.se:.2g}, which may be noise"
    else:
        why = f"{leader} leads {default} by {-lead.mean:.4g}, less than the practical step of {step:.2g}"
    choice = f"{kept} is kept" if kept == default_id else f"{kept} is kept: it is cheaper and no worse than {called}"
    return _with_ties(f"no significant winner: {why}; {choice}", others)


def _with_ties(sentence: str, ties: Sequence[str]) -> str:
    return f"{sentence}; not told apart from the leader: {', '.join(ties)}" if ties else sentence
