"""Which finalist is kept, and how sure that choice is: two questions, answered apart.

Kept is the setting whose gain over the plan's own has the highest posterior mean, and the plan's own
where none is above 0. The posterior of a gain joins what is known of it, each with its variance: the
race (fresh seeds, rows that the search never used), the search itself, and a normal prior fitted to the
gains of all that this search trained to the end, which takes back what the best of many owes to luck
(empirical Bayes; Efron and Morris, J. Am. Stat. Assoc. 70, 1975).

Sure is said of a gain that chance explains in at most 2.5 of 100 searches whose settings are all alike.
Rows and seeds are two sources of chance with degrees of freedom of their own; the limits that each would
need alone add in squares, which keeps the promise with a single degree of freedom too, where an
approximate number of joint ones (Welch and Satterthwaite) does not. Of several rivals the best is looked
at, so each is held to its share of the 2.5 (Bonferroni).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import stdtr, stdtrit

from loraloom.records import Gain, Score
from loraloom.search.compare import CONFIDENCE, Difference, average, mean_cost, paired_difference

Keep = Literal["best", "safe"]

FALSE_WINS = 0.025
"""Share of searches over settings that are all alike in which one may be said to be
better for certain."""
SAFE = 0.95
"""How probable a gain has to be where the plan's setting is kept otherwise (`search.keep: safe`)."""
PRACTICAL = 0.005
"""The smallest gain worth having, as a share of the cost of the plan's setting."""
LEAST_FOR_PRIOR = 3
"""Settings besides the plan's whose gains tell how gains are spread."""
LEAST_SPREAD = 0.1
"""Of the error of a gain: gains that scatter less than their errors still differ by something."""


@dataclass(frozen=True)
class Contender:
    """One setting and its scores.

    Attributes:
        finals: what it is judged by: one score a seed, the same seeds and rows for all; empty for a
            setting that did not race.
        searched: validation scores of its runs in the search.
        price: what it costs to keep (trainable parameters): less is better.
    """

    id: str
    finals: tuple[Score, ...] = ()
    searched: tuple[Score, ...] = ()
    price: float = math.inf

    @property
    def drift(self) -> float:
        """How far it has moved from its reference (`Score.drift`), on average over its finals."""
        return sum(score.drift for score in self.finals) / max(1, len(self.finals))


@dataclass(frozen=True)
class Winner:
    """The setting to keep.

    Attributes:
        significant: whether it is better than the plan's own for certain, and by at
            least the practical step.
        gain: of what is kept over the plan's own, and of the best rival where that is
            the plan's own; None without a rival.
        ties: others that cannot be told from what is kept, cheapest first.
        sentence: the verdict with its numbers.
    """

    id: str
    significant: bool
    gain: Gain | None
    ties: tuple[str, ...]
    sentence: str


@dataclass(frozen=True)
class Chance:
    """What a cost owes to its seed: variance of one run, and degrees of freedom of that
    figure; 0 where nothing tells."""

    variance: float
    freedom: int


@dataclass(frozen=True)
class _Judged:
    """A gain as the finals alone have it, with the variances of its two sources of
    chance, and as the posterior has it."""

    contender: Contender
    final: Difference
    seeds: float
    posterior: Gain


def pick_winner(
    contenders: Sequence[Contender],
    default_id: str,
    *,
    fresh: bool = False,
    rows_seen: bool = True,
    keep: Keep = "best",
    called: str = "the plan's setting",
    measure: str = "",
) -> Winner:
    """The setting to keep and how sure that is.

    Args:
        contenders: all settings of the search that were trained to the end; those with
            finals can be kept.
        default_id: the plan's own setting, which must have finals.
        fresh: whether the finals are of other seeds and other rows than what the search chose by. If
            not, they say nothing that the search did not know, and the best of all settings is as lucky
            as the best of all.
        rows_seen: where they are not fresh, whether that is for their rows, or for
            their seeds alone: the sentence says which.
        keep: "best" keeps the highest posterior mean; "safe" the plan's setting unless
            that is better with 95%.
        called: what the sentence calls the plan's setting, where something else stands for it.
        measure: what the costs are, before their numbers in the sentence; empty where
            whoever shows it says so.

    Raises:
        ValueError: the plan's setting has no finals, or the scores cannot be paired.
    """
    default = next((one for one in contenders if one.id == default_id and one.finals), None)
    if default is None:
        raise ValueError(
            f"the default {default_id} is not among the scores of"
            f" {', '.join(one.id for one in contenders)}"
        )
    rivals = [one for one in contenders if one.finals and one is not default]
    chance = seed_chance([default, *rivals], contenders)
    prior = _prior(default, contenders, chance)
    judged = [_judge(one, default, chance, prior, fresh) for one in rivals]
    if not judged:
        return Winner(
            default_id, False, None, (), f"{default_id} is kept: nothing was compared with {called}"
        )
    step = PRACTICAL * abs(_mean(default))
    best = _choose(judged, default, step, keep)
    moved = any(one.drift for one in (default, *rivals)) and keep == "best"
    kept = _calmest(judged, best, default) if moved else best
    shown = kept or max(judged, key=lambda one: one.posterior.mean)
    looked_at = len(rivals) if fresh else len({one.id for one in contenders}) - 1
    sure = kept is not None and _sure(kept, chance, looked_at) and kept.final.mean >= step
    ties = _ties(judged, kept, default, step)
    words = _Words(
        default, called, measure, chance, "" if fresh else "on rows" if rows_seen else "with seeds", keep
    )
    if kept is best:
        sentence = words.better(kept, sure) if kept else words.default_kept(shown)
    else:
        sentence = words.calmest(kept, best)
    return Winner(
        kept.contender.id if kept else default_id,
        sure,
        shown.posterior,
        ties,
        _with_ties(sentence, ties),
    )


def gains_over(contenders: Sequence[Contender], default_id: str) -> dict[str, Gain]:
    """Gain of each contender with finals over the default, by what fresh finals alone say of it."""
    default = next(one for one in contenders if one.id == default_id)
    rivals = [one for one in contenders if one.finals and one is not default]
    chance = seed_chance([default, *rivals], contenders)
    return {one.id: _judge(one, default, chance, None, True).posterior for one in rivals}


def seed_chance(raced: Sequence[Contender], contenders: Sequence[Contender]) -> Chance:
    """How much of a cost is the luck of its seed, pooled over all that was trained more than once.

    Finals: what is left of the settings' costs [F, S] once the mean of each setting and of each seed is
    taken out, with (F - 1)(S - 1) degrees of freedom. Search: runs of one setting around their mean.
    """
    squares = 0.0
    freedom = 0
    costs_FS = np.asarray([[mean_cost(score) for score in one.finals] for one in raced])
    rest_FS = (
        costs_FS - costs_FS.mean(1, keepdims=True) - costs_FS.mean(0, keepdims=True) + costs_FS.mean()
    )
    if rest_FS.shape[1] > 1:
        squares = float((rest_FS**2).sum())
        freedom = (rest_FS.shape[0] - 1) * (rest_FS.shape[1] - 1)
    for one in contenders:
        costs = np.asarray([mean_cost(score) for score in one.searched])
        if len(costs) > 1:
            squares = squares + float(((costs - costs.mean()) ** 2).sum())
            freedom = freedom + len(costs) - 1
    return Chance(squares / freedom, freedom) if freedom else Chance(0.0, 0)


def _mean(one: Contender) -> float:
    return mean_cost(average(one.finals))


def _searched_gain(one: Contender, default: Contender, chance: Chance) -> tuple[float, float] | None:
    """Gain in the search with its variance; None where one of the two was not scored there."""
    if not one.searched or not default.searched:
        return None
    found = paired_difference(average(default.searched), average(one.searched))
    return found.mean, found.se**2 + chance.variance * (
        1 / len(default.searched) + 1 / len(one.searched)
    )


def _prior(
    default: Contender, contenders: Sequence[Contender], chance: Chance
) -> tuple[float, float] | None:
    """Mean and variance of the gains of this search's settings, less what their errors
    add to it; None where too few tell."""
    others = [one for one in contenders if one is not default]
    found = [
        gain
        for one in others
        if (gain := _searched_gain(one, default, chance)) and math.isfinite(gain[1])
    ]
    if len(found) < LEAST_FOR_PRIOR:
        return None
    gains, errors = (np.asarray(side) for side in zip(*found, strict=True))
    error = float(errors.mean())
    return float(gains.mean()), max(float(gains.var(ddof=1)) - error, LEAST_SPREAD * error)


def _judge(
    one: Contender, default: Contender, chance: Chance, prior: tuple[float, float] | None, fresh: bool
) -> _Judged:
    final = paired_difference(average(default.finals), average(one.finals))
    seeds = 2 * chance.variance / len(one.finals)
    known = [(final.mean, final.se**2 + seeds), *([prior] if prior else [])]
    if fresh and (searched := _searched_gain(one, default, chance)):
        known.append(searched)
    return _Judged(one, final, seeds, _posterior(known, _freedom(final, seeds, chance)))


def _freedom(final: Difference, seeds: float, chance: Chance) -> float:
    """Degrees of freedom of a sum of two estimated variances, rows and seeds
    (Satterthwaite, Biometrics Bulletin 2, 1946)."""
    rows = final.se**2
    if not math.isfinite(rows):
        return math.inf
    parts = rows**2 / max(1, final.rows - 1) if final.rows else 0.0
    parts += seeds**2 / chance.freedom if chance.freedom else 0.0
    return (rows + seeds) ** 2 / parts if parts else math.inf


def _posterior(known: Sequence[tuple[float, float]], freedom: float) -> Gain:
    """Normal means with their variances, joined; in the tails a Student t, since the
    variances are estimated."""
    if any(variance == 0 for _, variance in known):
        known = [one for one in known if one[1] == 0]
        mean = known[0][0]
        return Gain(mean, mean, mean, float(mean > 0) if mean else 0.5)
    if not all(math.isfinite(mean) for mean, _ in known):
        return Gain(math.nan, math.nan, math.nan, 0.5)
    known = [one for one in known if math.isfinite(one[1])]
    if not known:
        return Gain(0.0, -math.inf, math.inf, 0.5)
    precision = sum(1 / variance for _, variance in known)
    mean = sum(mean / variance for mean, variance in known) / precision
    error = math.sqrt(1 / precision)
    reach = _quantile(freedom, 0.975) * error
    probability = float(stdtr(min(freedom, 1e6), mean / error))
    return Gain(mean, mean - reach, mean + reach, probability)


def _quantile(freedom: float, probability: float) -> float:
    """Of Student's t; infinitely many degrees of freedom are those of the normal distribution."""
    return float(stdtrit(min(freedom, 1e6), probability)) if freedom > 0 else math.inf


def _choose(judged: Sequence[_Judged], default: Contender, step: float, keep: Keep) -> _Judged | None:
    """What is kept; None for the plan's own setting.

    Where nothing is better on balance, a cheaper setting is kept if it is surely not worse by the
    practical step. Among those that are better the price is no reason: taking the cheapest within that
    step of the best cost two thirds of what a search had found (benchmarks/search).
    """
    able = [
        one
        for one in judged
        if one.posterior.mean > 0 and (keep == "best" or one.posterior.probability >= SAFE)
    ]
    if able:
        return min(able, key=lambda one: (-one.posterior.mean, one.contender.price, one.contender.id))
    cheaper = [
        one for one in judged if one.contender.price < default.price and one.posterior.low > -step
    ]
    return min(cheaper, key=lambda one: one.contender.price, default=None)


def _calmest(judged: Sequence[_Judged], best: _Judged | None, default: Contender) -> _Judged | None:
    """Of all that are within one standard error of the best, the one that has moved least from its
    reference: a preference is learnt by moving, and what moves further than it has to forgets more.
    None for the plan's own setting."""
    gain = best.posterior.mean if best else 0.0
    near = [one for one in judged if gain - one.posterior.mean <= _error(best or one)]
    calmest = min(near, key=lambda one: one.contender.drift, default=None)
    default_is_near = best is None or gain <= _error(best)
    if default_is_near and (calmest is None or default.drift <= calmest.contender.drift):
        return None
    return calmest


def _error(one: _Judged) -> float:
    """The standard error of a gain; its interval reaches two of them each way."""
    return (one.posterior.high - one.posterior.mean) / CONFIDENCE


def half_width(final: Difference, chance: Chance, seeds: int, level: float = 0.975) -> float:
    """How far chance moves a difference of two settings over so many seeds each, at a one-sided level.

    The limit of the rows and that of the seeds add in squares. Where nothing tells what
    a seed does, that of the rows alone.
    """
    rows = _quantile(max(1, final.rows - 1) if final.rows else math.inf, level) * final.se
    over_seeds = math.sqrt(2 * chance.variance / seeds)
    return math.hypot(rows, _quantile(chance.freedom, level) * over_seeds) if over_seeds else rows


def _sure(one: _Judged, chance: Chance, rivals: int) -> bool:
    """Whether chance alone would hardly give this gain. Without two runs of anything
    nothing is known of seeds."""
    if not chance.freedom or not math.isfinite(one.final.se):
        return False
    level = 1 - FALSE_WINS / max(1, rivals)
    return one.final.mean > half_width(one.final, chance, len(one.contender.finals), level)


def _ties(
    judged: Sequence[_Judged], kept: _Judged | None, default: Contender, step: float
) -> tuple[str, ...]:
    """Settings whose interval reaches what is kept, or that lie within the practical step of it."""
    level = kept.posterior.mean if kept else 0.0
    others = [one for one in judged if one is not kept]
    found = [
        one.contender
        for one in others
        if one.posterior.high >= level or level - one.posterior.mean < step
    ]
    if kept and (kept.posterior.low <= 0 or kept.posterior.mean < step):
        found.append(default)
    return tuple(one.id for one in sorted(found, key=lambda one: (one.price, one.id)))


@dataclass(frozen=True)
class _Words:
    """How a verdict is said."""

    default: Contender
    called: str
    measure: str
    chance: Chance
    seen: str
    keep: Keep

    @property
    def name(self) -> str:
        return f"{self.called} {self.default.id}"

    def better(self, kept: _Judged, sure: bool) -> str:
        gain = kept.posterior
        one = kept.contender
        if gain.mean <= 0:
            return (
                f"{one.id} is kept: it is cheaper than {self.name} and not worse by more than"
                f" {PRACTICAL:.1%}"
            )
        head = (
            f"{one.id} is better than {self.name}"
            if sure
            else f"{one.id} is {_likely(gain)} better than {self.name}"
        )
        numbers = f"{self.measure} {_mean(one):.4g} against {_mean(self.default):.4g}".lstrip()
        return f"{head}: {numbers}; {self._measured(gain)}"

    def calmest(self, kept: _Judged | None, best: _Judged | None) -> str:
        """Where another than the best is kept."""
        one, other = (each.contender if each else self.default for each in (kept, best))
        costs = f"{self.measure} {_mean(one):.4g} against {_mean(other):.4g}".lstrip()
        name = one.id if kept else self.name
        return (
            f"{name} is kept: {other.id} is the best by less than one standard error ({costs}), and has"
            f" moved further from the reference, {other.drift:.3g} nats a token against {one.drift:.3g}"
        )

    def default_kept(self, best: _Judged) -> str:
        gain = best.posterior
        if gain.mean <= 0:
            why = (
                f"no candidate is better on balance; the nearest is {best.contender.id}, better with"
                f" {gain.probability:.0%}"
            )
        else:
            why = (
                f"{best.contender.id} is {_likely(gain)} better, and `search.keep: safe` asks for"
                f" {SAFE:.0%}"
            )
        return f"{self.name} is kept: {why}; {self._measured(gain)}"

    def _measured(self, gain: Gain) -> str:
        if math.isinf(gain.high):
            return "too few rows for an interval"
        told = f"gain {gain.mean:.3g}, 95% interval {gain.low:.3g} to {gain.high:.3g}"
        if not self.chance.freedom:
            told += ", of these adapters: one seed each does not say what the settings would do again"
        if self.seen:
            told += f"; {self.seen} that the choice had seen, so expect a little less"
        return told


def _likely(gain: Gain) -> str:
    word = (
        "very probably"
        if gain.probability >= SAFE
        else "probably"
        if gain.probability >= 0.75
        else "perhaps"
    )
    return f"{word} ({gain.probability:.0%})"


def _with_ties(sentence: str, ties: Sequence[str]) -> str:
    return f"{sentence}; cannot be told apart from it: {', '.join(ties)}" if ties else sentence
