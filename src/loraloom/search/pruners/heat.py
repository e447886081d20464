"""A trial at a rung and the trials that it is held against there, kept up to date one
report at a time."""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass, field

from loraloom.search.curves import Reading, TrialCurve
from loraloom.search.space import ALPHA, RANK
from loraloom.search.values import Verdict

LAST_RUNG_FOR_RANKS = 0.75
"""Before it, early loss cannot tell ranks apart: trials that differ in nothing else are
not held against each other."""


@dataclass(frozen=True)
class Stand:
    """Where a trial is judged: a rung, and the first reading there that may be judged."""

    rung: float
    reading: Reading

    @property
    def progress(self) -> float:
        return self.reading.progress


@dataclass
class Heat:
    """One trial at its stand among its peers: all that are comparable and have come as
    far, or may still come.

    Attributes:
        arrived: the readings by which each peer is judged that has come as far, by id.
        coming: the peers that are on their way.
        better: level, number and trial of those that have come and are better, best first.
        verdict: what was decided last; out of date where `stale`.
    """

    curve: TrialCurve
    stand: Stand
    arrived: dict[str, list[Reading]] = field(default_factory=dict[str, "list[Reading]"])
    coming: set[str] = field(default_factory=set[str])
    better: list[tuple[float, int, TrialCurve]] = field(
        default_factory=list[tuple[float, int, TrialCurve]]
    )
    verdict: Verdict | None = None
    stale: bool = True
    _answers: dict[tuple[str, float], bool] = field(default_factory=dict[tuple[str, float], bool])

    def note(self, peer: TrialCurve, number: int) -> None:
        """Take in how a peer stands now; `number` is its place in the order of asking."""
        if peer is self.curve:
            return
        progress, before = self.stand.progress, self.arrived.get(peer.id)
        here = peer.reached(progress)
        coming = not here and peer.living and peer.wave <= self.curve.wave
        counts = (here or coming) and comparable(peer, self.curve, self.stand.rung)
        seen = peer.until(progress) if here and counts else None
        if seen == before and (coming and counts) == (peer.id in self.coming):
            return
        self.forget(peer)
        (self.coming.add if coming and counts else self.coming.discard)(peer.id)
        if before is not None:
            self.better = [one for one in self.better if one[2] is not peer]
            del self.arrived[peer.id]
        if seen is not None:
            self.arrived[peer.id] = seen
            if peer.level(progress) < self.curve.level(progress):
                insort(self.better, (peer.level(progress), number, peer))

    def forget(self, peer: TrialCurve | None = None) -> None:
        """Something has changed that answers rest on: one peer, or None for the
        yardstick of them all."""
        self.stale = True
        self._answers = (
            {}
            if peer is None
            else {key: told for key, told in self._answers.items() if key[0] != peer.id}
        )

    def once(self, peer: TrialCurve, errors: float, ask: Callable[[], bool]) -> bool:
        """The answer to a question about a peer, worked out once."""
        if (peer.id, errors) not in self._answers:
            self._answers[peer.id, errors] = ask()
        return self._answers[peer.id, errors]


def comparable(peer: TrialCurve, curve: TrialCurve, rung: float) -> bool:
    """Same course of the learning rate, and not a mere difference in rank that the loss
    cannot show yet."""
    if peer.shape is None:
        return peer.living
    return peer.shape == curve.shape and (rung >= LAST_RUNG_FOR_RANKS or not is_rank_tie(peer, curve))


def is_rank_tie(one: TrialCurve, other: TrialCurve) -> bool:
    """Whether two trials differ in rank (and the alpha that follows it) alone; numbers
    within 5% count as equal."""
    a, b = one.asked.params, other.asked.params
    if a.get(RANK) == b.get(RANK) or a.keys() != b.keys():
        return False
    return all(_alike(a[key], b[key]) for key in a if key not in (RANK, ALPHA))


def _alike(a: object, b: object) -> bool:
    if isinstance(a, int | float) and isinstance(b, int | float):
        return math.isclose(a, b, rel_tol=0.05)
    return a == b
