"""Successive halving over a field that starts wide: many candidates for a short way,
few of them to the end.

Two rungs, at an eighth and three eighths of each candidate's own steps. A candidate that reaches one
waits there, out of the pack, until all have come as far; then a third goes on. Measured against careful
pruning of half as many candidates, a good setting is found in half of the time (benchmarks/search): what
an early loss misjudges has an equal among the many more that are tried. What keeps it honest:

- Only candidates whose learning rate takes the same course are ranked against each other.
- Early loss favours what learns fast, and says little of ranks and dropout (arXiv 2209.12499): half of
  the places at the first rung go by loss alone, the others first to the best of each rank and each
  dropout that has no place yet.
- Two of those that have no place, drawn by chance, go on to the second rung all the same (audits). If
  they do there as well as those that were chosen, the first rung has told nothing: it is moved, and all
  others come as far as the second.
- The plan's own setting is trained to its end, and takes nobody's place.

All of it follows from the curves alone, so a search that is played back decides the same, and the order
in which candidates report does not matter; it is worked out anew where one of them has come to a rung or
has ended. Source of the procedure: Karnin et al. 2013; Jamieson and Talwalkar, arXiv 1502.07943; the
places, rungs and audits are this project's own, chosen on replays.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass
from random import Random
from statistics import median

from loraloom.config import names
from loraloom.search.curves import NEAR, Reading, TrialCurve, remembered
from loraloom.search.finals import finalists_of
from loraloom.search.pruners.pruner import EXITS_ONLY, NoPruner, Pruner, PrunerInputs
from loraloom.search.pruners.watch import Watch
from loraloom.search.space import RANK
from loraloom.search.values import Verdict

FIRST, SECOND = 1 / 8, 3 / 8
"""Shares of a candidate's own steps. Where warm-up lasts longer than the first, the
first evaluation after it counts."""
KEPT_OF = 3
"""At each rung, one of so many goes on."""
MIN_STEPS = 5
AUDITS = 2
SMALLEST = 4
"""Fewer candidates that can be compared are not ranked: all of them go on."""
UNRANKED = (RANK, names.LORA_DROPOUT)
"""Settings that the first rung cannot tell apart."""


@dataclass(frozen=True)
class Rung:
    """What was decided at a rung over one field: its candidates from best to worst, and who goes on."""

    order: Sequence[TrialCurve]
    chosen: Collection[str]
    places: int

    def place(self, curve: TrialCurve) -> int | None:
        """From 1 for the best; None for one that was not sent here."""
        return next((place for place, one in enumerate(self.order, start=1) if one is curve), None)


@dataclass(frozen=True)
class Stage:
    """How far a field has come: the rungs that are decided, and who is sent to the second."""

    first: Rung | None = None
    sent: Collection[str] = ()
    second: Rung | None = None


class HalvingPruner:
    """Halving by thirds, twice.

    Args:
        trials: how many candidates the whole search has.
        seed: of the draw of the audits.
    """

    def __init__(self, trials: int, seed: int = 0) -> None:
        self.trials, self.seed = trials, seed
        self._watch = Watch()
        self._standings: dict[str, Hashable] = {}
        self._all_asked: bool | None = None
        self._stages: list[tuple[list[TrialCurve], Stage]] = []

    def verdicts(self, curves: Sequence[TrialCurve], coming: int = 0) -> list[Verdict]:
        """Who waits and who goes, given all that has been seen so far.

        Args:
            coming: candidates that are still to be handed out.
        """
        self._follow(curves, coming)
        found: list[Verdict] = []
        for field, stage in self._stages:
            judged = [
                _judge(curve, stage) for curve in field if curve.unfinished and not curve.protected
            ]
            found += [verdict for verdict in judged if verdict]
        return found

    def released(self, curves: Sequence[TrialCurve], coming: int = 0) -> list[str]:
        """Those who wait and may go on, in the order in which they were asked."""
        self._follow(curves, coming)
        found: set[str] = set()
        for field, stage in self._stages:
            if stage.second is not None:
                found |= {
                    curve.id for curve in field if curve.paused and curve.id in stage.second.chosen
                }
            else:
                there = (curve for curve in field if curve.paused and curve.id in stage.sent)
                found |= {curve.id for curve in there if mark(curve, SECOND) is None}
        return [curve.id for curve in curves if curve.id in found]

    def _follow(self, curves: Sequence[TrialCurve], coming: int) -> None:
        """Work out anew how far each field has come, if anything that this rests on has changed."""
        moved, self._all_asked = self._all_asked != (coming == 0), coming == 0
        for curve in self._watch.changed(curves):
            standing = (curve.shape, curve.living, mark(curve, FIRST), mark(curve, SECOND))
            moved = moved or self._standings.get(curve.id) != standing
            self._standings[curve.id] = standing
        if moved:
            self._stages = [(field, self._stage(field, curves, coming)) for field in _fields(curves)]

    def _stage(self, field: Sequence[TrialCurve], curves: Sequence[TrialCurve], coming: int) -> Stage:
        first = self._first(field, curves, coming)
        if first is None:
            return Stage()
        audits = self._audits(first)
        sent = {*first.chosen, *audits}
        if self._misled(first, audits):
            sent = {curve.id for curve in first.order}
        return Stage(first, sent, self._second(first, sent))

    def _first(
        self, field: Sequence[TrialCurve], curves: Sequence[TrialCurve], coming: int
    ) -> Rung | None:
        """The first rung, once all have come as far, those included whose course is not known yet."""
        unknown = [curve for curve in curves if curve.shape is None]
        if coming or any(_on_its_way(curve, FIRST) for curve in [*field, *unknown]):
            return None
        order = _ranked(field, FIRST)
        places = places_at(len(order), self.trials)
        return Rung(order, _spread(order, places), places)

    def _second(self, first: Rung, sent: Collection[str]) -> Rung | None:
        """The second rung, once all who were sent there have come."""
        field = [curve for curve in first.order if curve.id in sent]
        if any(_on_its_way(curve, SECOND) for curve in field):
            return None
        order = _ranked(field, SECOND)
        places = places_at(first.places, self.trials) if len(first.order) >= SMALLEST else len(order)
        return Rung(order, {curve.id for curve in order[:places]}, places)

    def _misled(self, first: Rung, audits: Collection[str]) -> bool:
        """Whether the audits do at the second rung as well as those that the first had chosen."""
        field = [curve for curve in first.order if curve.id in audits or curve.id in first.chosen]
        if any(_on_its_way(curve, SECOND) for curve in field):
            return False
        order = _ranked(field, SECOND)
        told = [place for place, curve in enumerate(order) if curve.id in audits]
        taken = [place for place, curve in enumerate(order) if curve.id in first.chosen]
        return bool(told and taken) and median(told) <= median(taken)

    def _audits(self, first: Rung) -> set[str]:
        """A few of those that have no place at the first rung, by chance."""
        left = sorted(curve.id for curve in first.order if curve.id not in first.chosen)
        return set(Random(f"{self.seed}:{','.join(left)}").sample(left, min(AUDITS, len(left) // 2)))


def automatic(inputs: PrunerInputs) -> Pruner:
    """Halving, where there is anything to halve."""
    return HalvingPruner(inputs.trials, inputs.seed) if inputs.trials > EXITS_ONLY else NoPruner()


def places_at(field: int, trials: int) -> int:
    """How many of a field go on from a rung: a third, but no fewer than race against
    the plan's setting in the end."""
    return field if field < SMALLEST else max(finalists_of(trials) - 1, round(field / KEPT_OF))


def whole_trainings(trials: int) -> float:
    """How many trainings from start to end a search of so many candidates comes to,
    evenly spread as to batch and rank."""
    if trials <= SMALLEST:
        return float(trials)
    others = trials - 1
    first = places_at(others, trials)
    second, audits = places_at(first, trials), min(AUDITS, (others - first) // 2)
    return 1 + others * FIRST + (first + audits) * (SECOND - FIRST) + second * (1 - SECOND)


@remembered
def mark(curve: TrialCurve, rung: float) -> Reading | None:
    """The evaluation by which a candidate is judged at a rung, once it has had it: the first after
    warm-up that lies no more than half a step before the rung, as evaluations are put on whole steps."""
    for reading in curve.readings:
        half = 0.5 * reading.progress / reading.step
        if reading.progress >= rung - half - NEAR and reading.after_warmup and reading.step >= MIN_STEPS:
            return reading
    return None


@remembered
def cost_at(curve: TrialCurve, rung: float) -> float:
    """The lowest cost up to a rung, as a candidate's best checkpoint counts; infinite
    where no score was finite."""
    last = mark(curve, rung)
    seen = curve.readings if last is None else curve.readings[: curve.readings.index(last) + 1]
    return min((reading.cost for reading in seen if reading.finite), default=math.inf)


def _fields(curves: Sequence[TrialCurve]) -> list[list[TrialCurve]]:
    """Candidates that can be ranked against each other."""
    fields: dict[str, list[TrialCurve]] = {}
    for curve in curves:
        if curve.shape is not None:
            fields.setdefault(curve.shape, []).append(curve)
    return list(fields.values())


def _on_its_way(curve: TrialCurve, rung: float) -> bool:
    """Whether a candidate is still to reach a rung."""
    return curve.living and mark(curve, rung) is None


def _ranked(field: Iterable[TrialCurve], rung: float) -> list[TrialCurve]:
    """Those that came to a rung, best first, but for the plan's own setting."""
    came = [curve for curve in field if not curve.protected and mark(curve, rung)]
    return sorted(came, key=lambda curve: (cost_at(curve, rung), curve.id))


def _spread(order: Sequence[TrialCurve], places: int) -> set[str]:
    """Who goes on from the first rung: half by loss alone, then the best of each rank
    and dropout, then by loss again."""
    chosen = {curve.id: curve for curve in order[: math.ceil(places / 2)]}
    for key in UNRANKED:
        taken = [one.asked.params.get(key) for one in chosen.values()]
        for curve in order:
            value = curve.asked.params.get(key)
            if len(chosen) < places and value not in taken:
                chosen[curve.id] = curve
                taken.append(value)
    for curve in order:
        if len(chosen) < places:
            chosen[curve.id] = curve
    return set(chosen)


def _judge(curve: TrialCurve, stage: Stage) -> Verdict | None:
    early, late = mark(curve, FIRST), mark(curve, SECOND)
    if early is None:
        return None
    if stage.first is not None and stage.second is not None:
        if curve.id in stage.second.chosen:
            return None
        at, rung = (
            (late, stage.second)
            if late is not None and stage.second.place(curve)
            else (early, stage.first)
        )
        return _cut(curve, at, rung)
    if curve.paused or (late is None and curve.id in stage.sent):
        return None
    # Without a place it waits all the same, until the audits have shown that the first rung was right.
    return _wait(curve, late or early)


def _wait(curve: TrialCurve, at: Reading) -> Verdict:
    return Verdict(
        curve.id,
        "pause",
        f"waits at {at.progress:.0%} of its steps until the others have come as far",
        at.step,
    )


def _cut(curve: TrialCurve, at: Reading, rung: Rung) -> Verdict:
    reason = (
        f"at {at.progress:.0%} of its steps its validation cost of {at.cost:.4g} had place"
        f" {rung.place(curve)} of {len(rung.order)}, and {rung.places} went on"
    )
    return Verdict(curve.id, "prune", reason, at.step)
