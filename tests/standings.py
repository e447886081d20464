"""Where each trial of a search stands: what tests look at, and nothing else needs to see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loraloom.search.curves import standing
from loraloom.search.searcher import Searcher


@dataclass(frozen=True)
class Place:
    """A trial: its cost is that of its final score, or of its last one while it runs or where it was cut
    off."""

    trial_id: str
    status: str
    params: Mapping[str, Any]
    seed_offset: int
    cost: float
    progress: float


def ranking(searcher: Searcher) -> list[Place]:
    """All trials handed out, from the lowest cost to the highest."""
    curves = searcher._curves.values()  # pyright: ignore[reportPrivateUsage]
    places = [
        Place(
            curve.id,
            curve.status,
            curve.asked.params,
            curve.asked.seed_offset,
            standing(curve),
            curve.last.progress if curve.last else 0.0,
        )
        for curve in curves
    ]
    return sorted(places, key=lambda place: (place.cost, place.trial_id))
