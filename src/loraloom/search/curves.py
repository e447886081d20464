"""The course of each trial so far, as rungs and exits read it."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import wraps
from statistics import median
from typing import Any, TypeVar

from loraloom.records import Score, TrialStatus
from loraloom.search.compare import mean_cost
from loraloom.search.values import AskedTrial, Observation

NEAR = 1e-6
"""Progress is a quotient of whole numbers: compare it with this much slack."""
MEDIAN_OF = 3
"""Evaluations whose median stands for a trial: one lucky draw must not decide."""


T = TypeVar("T")


@dataclass(frozen=True)
class Reading:
    """An observation with its cost worked out once. `cost` is nan or infinite where the score is.

    A search keeps every reading, each with its rows: those of `score` are best in arrays (`compact`).
    """

    step: int
    progress: float
    warmup_share: float
    cost: float
    score: Score
    train_loss: float
    initial_train_loss: float

    @classmethod
    def of(cls, seen: Observation) -> Reading:
        return cls(
            seen.step,
            seen.progress,
            seen.warmup_share,
            mean_cost(seen.score),
            seen.score,
            seen.train_loss,
            seen.initial_train_loss,
        )

    @property
    def finite(self) -> bool:
        return math.isfinite(self.cost)

    @property
    def after_warmup(self) -> bool:
        return self.progress > self.warmup_share + NEAR


def remembered(work: Callable[[TrialCurve, float], T]) -> Callable[[TrialCurve, float], T]:
    """`work`, done once for each progress until the curve has another reading: rungs
    ask the same again at every report."""

    @wraps(work)
    def once(curve: TrialCurve, progress: float) -> T:
        key = (work.__name__, progress)
        if key not in curve.worked_out:
            curve.worked_out[key] = work(curve, progress)
        return curve.worked_out[key]

    return once


@dataclass
class TrialCurve:
    """One trial: what it was asked to be, and what has been seen of it.

    Attributes:
        wave: trials that were asked with no report in between belong to one wave.
        protected: the plan's own setting (and its second seed): the yardstick runs to its end.
        shape: the observations' `schedule_shape` as text; None before the first.
        paused: waits out of the pack until others have come as far.
        cost: of the final score, once told.
        finite: the readings whose cost is.
        worked_out: what is remembered of the readings, by name and progress.
    """

    asked: AskedTrial
    wave: int
    protected: bool = False
    status: TrialStatus = "running"
    readings: list[Reading] = field(default_factory=list[Reading])
    shape: str | None = None
    cost: float | None = None
    paused: bool = False
    finite: list[Reading] = field(default_factory=list[Reading])
    worked_out: dict[tuple[str, float], Any] = field(default_factory=dict[tuple[str, float], Any])

    def __post_init__(self) -> None:
        self.id = self.asked.id

    @property
    def living(self) -> bool:
        return self.status == "running"

    @property
    def unfinished(self) -> bool:
        """Whether it lives and has steps before it."""
        return self.living and (self.last is None or self.last.progress < 1 - NEAR)

    @property
    def last(self) -> Reading | None:
        return self.readings[-1] if self.readings else None

    def add(self, seen: Observation) -> None:
        """Append an observation; a trial that was taken up again forgets what lay at or
        beyond this step."""
        self.readings = [reading for reading in self.readings if reading.step < seen.step]
        self.readings.append(Reading.of(seen))
        self.finite = [reading for reading in self.readings if reading.finite]
        self.worked_out = {}
        self.shape = repr(seen.schedule_shape)

    @remembered
    def reached(self, progress: float) -> bool:
        return any(reading.progress >= progress - NEAR for reading in self.finite)

    @remembered
    def until(self, progress: float) -> list[Reading]:
        """The last finite readings (3 at most) up to a progress, those after warm-up
        where there are any."""
        seen = [reading for reading in self.finite if reading.progress <= progress + NEAR]
        return ([reading for reading in seen if reading.after_warmup] or seen)[-MEDIAN_OF:]

    @remembered
    def level(self, progress: float) -> float:
        """The median cost of the last readings up to a progress; infinite before the first."""
        costs = [reading.cost for reading in self.until(progress)]
        return median(costs) if costs else math.inf

    def slope(self, progress: float) -> float:
        """Change of cost per unit of progress over the last readings up to a progress;
        0 with a single one."""
        seen = self.until(progress)
        width = seen[-1].progress - seen[0].progress if seen else 0.0
        return (seen[-1].cost - seen[0].cost) / width if width > NEAR else 0.0


def compact(score: Score, like: Score | None) -> Score:
    """The same score in little memory: rows as arrays, and the weights those of `like`
    where they are equal."""
    weights = array("d", score.weights)
    shared = like.weights if like is not None and like.weights == weights else weights
    return replace(score, costs=array("d", score.costs), weights=shared)


def leader(curves: Sequence[TrialCurve]) -> TrialCurve | None:
    """The trial with the lowest cost so far: final where it is known, else the level of
    its last reading."""
    known = [
        curve
        for curve in curves
        if math.isfinite(standing(curve)) and curve.status not in ("diverged", "failed")
    ]
    return min(known, key=lambda curve: (standing(curve), curve.id)) if known else None


def standing(curve: TrialCurve) -> float:
    """The cost of a trial as far as it is known."""
    if curve.cost is not None:
        return curve.cost
    return curve.level(curve.last.progress) if curve.last else math.inf
