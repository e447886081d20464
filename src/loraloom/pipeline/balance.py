"""The end of a search on several workers: one that has nothing left to do takes candidates from the one
that would be last.

Before that there is nothing to balance: a worker asks for the next candidate when it has room, and so a
fast one has more of them. Speeds are those that were seen, in tokens a second.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from statistics import fmean

from loraloom.train.orders import SeatView

WORTH_SECONDS = 3.0
"""By so much the last worker has to be done earlier: a candidate that moves is kept, read again and
seated, which takes about a second, and its pack has to end its turn first."""

Packs = Mapping[str, Mapping[str, SeatView]]
"""Candidates by worker and trial."""


@dataclass
class Speed:
    """What a worker was seen to train, and in what time."""

    tokens: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float | None:
        """Tokens a second; None before anything was seen."""
        return self.tokens / self.seconds if self.tokens and self.seconds > 0 else None

    def saw(self, before: Mapping[str, SeatView], now: Mapping[str, SeatView]) -> None:
        """A turn has made this of a pack."""
        for trial in before.keys() & now.keys():
            self.tokens += now[trial].tokens - before[trial].tokens
            self.seconds += now[trial].seconds - before[trial].seconds


def work_left(seat: SeatView) -> float:
    """Tokens that a candidate still trains on, as far as its steps so far tell."""
    return seat.tokens / max(1, seat.step) * (seat.planned_steps - seat.step)


def relief(
    idle: str, packs: Packs, speeds: Mapping[str, Speed], moving: Collection[str] = ()
) -> str | None:
    """The candidate that `idle` should take over so that the run ends earlier; None where none would.

    Args:
        packs: of all workers.
        moving: candidates that are on their way to another worker.
    """
    rates = {name: rate for name in packs if (rate := speeds.get(name, Speed()).rate) is not None}
    works = {
        name: {trial: work_left(seat) for trial, seat in packs[name].items() if trial not in moving}
        for name in rates
        if name != idle
    }
    left = {name: work for name, work in works.items() if work}
    if not left:
        return None
    own = rates.get(idle, fmean(rates[name] for name in left))
    last = max(left, key=lambda name: sum(left[name].values()) / rates[name])
    whole = sum(left[last].values())

    def ends_after(trial: str) -> float:
        work = left[last][trial]
        return max((whole - work) / rates[last], work / own)

    best = min(left[last], key=ends_after)
    return best if whole / rates[last] - ends_after(best) > WORTH_SECONDS else None
