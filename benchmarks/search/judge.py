"""From courses of searches to figures: how long until the target is reached, and what was decided wrongly."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import mean
from typing import Any

import numpy as np
from replay import Course
from world import World

from loraloom.search.compare import mean_cost

TIMES = ("target", "whole")


@dataclass(frozen=True)
class Judged:
    """A contestant on a task, over all its replays. Times in seconds; infinite where the target was missed.

    Attributes:
        target: low, median and high (5%, 50%, 95%) of the time from which the best candidate so far is within the target.
        whole: the same of the time to the declared winner.
        hit: share of replays that declared a winner within the target.
        cut: candidates that were pruned or given up for diverged, a search.
        false_prunes: share of them that would have ended with a lower validation loss than the winner.
        lost: share of replays in which a setting was cut that is good and the declared winner is not.
        false_winners: share of replays whose winner is another than the default and truly no better.
        regret: mean of the way from base to best that the winner lacks.
        thinking: CPU seconds a replay itself took, nearly all of them the searcher's; in no time above.
    """

    target: tuple[float, float, float]
    whole: tuple[float, float, float]
    hit: float
    cut: float
    false_prunes: float | None
    lost: float
    false_winners: float
    regret: float
    thinking: float = 0.0

    def plain(self) -> dict[str, Any]:
        """For JSON, which has no infinity: there it is null."""
        return asdict(self) | {name: [None if math.isinf(one) else one for one in getattr(self, name)] for name in TIMES}

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Judged:
        kept: dict[str, Any] = dict(plain)
        for name in TIMES:
            kept[name] = tuple(math.inf if one is None else one for one in plain[name])
        return cls(**kept)


def judge(world: World, courses: Sequence[Course], thinking: float = 0.0) -> Judged:
    """All figures of one contestant."""
    cut = [(course, one) for course in courses for one in course.ended if one.status != "completed"]
    wrong = [mean_cost(world.best(one.place)) < lowest(course) for course, one in cut]
    truth, good = world.truth, world.good
    return Judged(
        target=_interval([reached(world, course) for course in courses]),
        whole=_interval([course.seconds for course in courses]),
        hit=mean(bool(good[course.winner]) for course in courses),
        cut=len(cut) / len(courses),
        false_prunes=mean(wrong) if wrong else None,
        lost=mean(
            not good[c.winner] and any(good[one.place[0]] for one in c.ended if one.status != "completed") for c in courses
        ),
        false_winners=mean(c.winner != world.default and bool(truth[c.winner] >= truth[world.default]) for c in courses),
        regret=mean(1 - float(world.shares[course.winner]) for course in courses),
        thinking=thinking,
    )


def reached(world: World, course: Course) -> float:
    """When the target was reached for good: from then on, the best candidate so far was always within it."""
    since, lowest_yet = math.inf, math.inf
    for one in course.ended:
        if one.status == "completed" and one.cost < lowest_yet:
            lowest_yet = one.cost
            if not world.good[one.place[0]]:
                since = math.inf
            elif math.isinf(since):
                since = one.seconds
    return since


def lowest(course: Course) -> float:
    return min(one.cost for one in course.ended if one.status == "completed")


def _interval(values: Sequence[float]) -> tuple[float, float, float]:
    """5%, 50% and 95% as values that occurred: an infinite one must not be averaged."""
    low, middle, high = np.quantile(np.asarray(values), (0.05, 0.5, 0.95), method="inverted_cdf")
    return float(low), float(middle), float(high)


# -- gains -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gain:
    """How many times faster one contestant is than another, at the medians: to the target and to the declared winner."""

    what: str
    target: float
    whole: float

    def plain(self) -> dict[str, Any]:
        """For JSON: null where one of the two never arrived."""
        return {name: None if isinstance(one, float) and not math.isfinite(one) else one for name, one in asdict(self).items()}


def gain(what: str, slow: Judged, fast: Judged) -> Gain:
    return Gain(what, _ratio(slow.target[1], fast.target[1]), _ratio(slow.whole[1], fast.whole[1]))


def _ratio(slow: float, fast: float) -> float:
    """nan where neither ever arrived."""
    return math.nan if math.isinf(slow) and math.isinf(fast) else slow / fast


def factorial(judged: Mapping[tuple[bool, bool, bool], Judged]) -> list[Gain]:
    """What packing, pruning and the sampler each bring: the geometric mean over the four settings of the other two."""
    found: list[Gain] = []
    for part, what in enumerate(("packing", "pruning", "sampler")):
        pairs = [(judged[cell], judged[_with(cell, part)]) for cell in judged if not cell[part]]
        gains = [gain(what, without, with_it) for without, with_it in pairs]
        found.append(Gain(what, _geometric(gains, lambda one: one.target), _geometric(gains, lambda one: one.whole)))
    return found


def _with(cell: tuple[bool, bool, bool], part: int) -> tuple[bool, bool, bool]:
    a, b, c = (value or place == part for place, value in enumerate(cell))
    return a, b, c


def _geometric(gains: Sequence[Gain], pick: Callable[[Gain], float]) -> float:
    """nan where one of the pairs has no factor: half of its searches never arrived."""
    if not all(math.isfinite(pick(one)) and pick(one) > 0 for one in gains):
        return math.nan
    return math.exp(mean(math.log(pick(one)) for one in gains))
