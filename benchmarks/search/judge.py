"""From courses of searches to figures: how long until the target is reached, and what
was decided wrongly."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import mean
from typing import Any, TypeAlias

import numpy as np
from replay import Course
from world import World

from loraloom.search.compare import mean_cost

TIMES = ("target", "whole")
BINS = (0.5, 0.75, 0.9, 0.97)
"""Of said probabilities: each from here to the next; the last to 1."""


Said: TypeAlias = tuple[int, float, float]
"""Winners in a bin, mean of the probabilities that were said of them, share for whom it came true."""


@dataclass(frozen=True)
class Judged:
    """A contestant on a task, over all its replays. Times in seconds; infinite where
    the target was missed.

    Attributes:
        target: low, median and high (5%, 50%, 95%) of the time from which the best
            candidate so far is within the target.
        whole: the same of the time to the declared winner.
        hit: share of replays that declared a winner within the target.
        cut: candidates that were pruned or given up for diverged, a search.
        false_prunes: share of them that would have ended with a lower validation loss than the winner.
        lost: share of replays in which a setting was cut that is good and the declared winner is not.
        false_winners: share of replays whose winner is another than the default and truly no better.
        regret: mean of the way from base to best that the winner lacks.
        replays: how many there were.
        said: of races, by the bins of the said probability that the winner is better than the plan's
            setting: [winners, mean of what was said, share that are truly better]; empty without a race.
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
    replays: int = 1
    said: tuple[Said, ...] = ()
    thinking: float = 0.0

    def plain(self) -> dict[str, Any]:
        """For JSON, which has no infinity: there it is null."""
        return asdict(self) | {
            name: [None if math.isinf(one) else one for one in getattr(self, name)] for name in TIMES
        }

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Judged:
        kept: dict[str, Any] = dict(plain)
        for name in TIMES:
            kept[name] = tuple(math.inf if one is None else one for one in plain[name])
        kept["said"] = tuple(map(tuple, plain["said"]))
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
            not good[c.winner]
            and any(good[one.place[0]] for one in c.ended if one.status != "completed")
            for c in courses
        ),
        false_winners=mean(
            c.winner != world.default and bool(truth[c.winner] >= truth[world.default]) for c in courses
        ),
        regret=mean(1 - float(world.shares[course.winner]) for course in courses),
        replays=len(courses),
        said=calibration(
            [
                (c.said, bool(truth[c.winner] < truth[world.default]))
                for c in courses
                if c.said is not None
            ]
        ),
        thinking=thinking,
    )


def reached(world: World, course: Course) -> float:
    """When the target was reached for good: from then on, the best candidate so far was
    always within it."""
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


def calibration(found: Sequence[tuple[float, bool]]) -> tuple[Said, ...]:
    """(said, came true) of each winner, by `BINS`; what was said below the first
    belongs to the first."""
    if not found:
        return ()
    said, true = (np.asarray(side, dtype=float) for side in zip(*found, strict=True))
    place = np.clip(np.searchsorted(BINS, said, side="right") - 1, 0, None)
    inside = [place == number for number in range(len(BINS))]
    return tuple((int(one.sum()), _mean(said[one]), _mean(true[one])) for one in inside)


def pooled(many: Sequence[Sequence[Said]]) -> list[Said]:
    """Bins of several searches as one."""
    found: list[Said] = []
    for bins in zip(*(one for one in many if one), strict=True):
        count = sum(winners for winners, _, _ in bins)
        sums = (sum(one[0] * one[part] for one in bins if one[0]) for part in (1, 2))
        said, true = (total / count if count else 0.0 for total in sums)
        found.append((count, said, true))
    return found


def _mean(values: np.ndarray) -> float:
    """0 where there are none."""
    return float(values.mean()) if len(values) else 0.0


# -- how much sooner
# -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shortest:
    """The shortest search of a contestant of which a given share declares a winner within the target."""

    trials: int
    seconds: float


def shortest(by_size: Mapping[int, Judged], share: float) -> Shortest | None:
    """Median seconds to the winner count; None where no size reaches the share. Nothing
    is read between two sizes."""
    able = [Shortest(trials, one.whole[1]) for trials, one in by_size.items() if one.hit >= share]
    return min(able, key=lambda one: one.seconds, default=None)


def times_sooner(slow: Shortest | None, fast: Shortest | None) -> float | None:
    """None where one of the two never gets there."""
    return slow.seconds / fast.seconds if slow and fast else None
