"""Routes that a memory writes, and what they are worth on its maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from loraloom.pipeline.recall.bench import MAX_NEW_TOKENS, MemoryBench
from loraloom.recall.items import MemoryItem
from loraloom.recall.places import Pair, PlaceMap, longest_routes, macros, maps_of, ways_of
from loraloom.recall.routes import path_text, route_answer, route_question
from loraloom.recall.simulator import Policy, RouteScore, simulated

MOST_ASKED = 40
"""Pairs of each kind that a report asks for."""


@dataclass(frozen=True)
class MapReport:
    """What is known of a map, and what a memory makes of it.

    Attributes:
        seen: pairs that some trajectory leads between, scored; `unseen`: pairs that were never trained.
        macros: stretches that many trajectories share: (in words, of how many).
    """

    map: str
    places: int
    steps: int
    trajectories: int
    seen: RouteScore
    unseen: RouteScore
    macros: tuple[tuple[str, int], ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        shared = [{"route": route, "trajectories": count} for route, count in self.macros]
        return {**asdict(self), "macros": shared}


def route_policy(bench: MemoryBench, known: PlaceMap, trial: str | None) -> Policy:
    """What a memory answers when it is asked for routes on a map.

    Args:
        trial: the memory's adapter in the pack; None for the bare base.
    """
    most = answer_room(bench, {known.name: known})

    def written(pairs: Sequence[Pair]) -> list[str]:
        return bench.answers([route_question(known.name, *pair) for pair in pairs], trial, most=most)

    return written


def answer_room(bench: MemoryBench, maps: Mapping[str, PlaceMap]) -> int:
    """Tokens that an answer about these maps may have: the longest known route, and a third more."""
    longest = [path for known in maps.values() for path in longest_routes(known)]
    tokens = max((bench.tokens(route_answer(path)) for path in longest), default=0)
    return max(MAX_NEW_TOKENS, 4 * tokens // 3)


def map_reports(bench: MemoryBench, items: Sequence[MemoryItem], trial: str | None) -> list[MapReport]:
    """Every map of these items with the routes that a memory writes on it, freely.

    Args:
        trial: the memory's adapter in the pack; None for the bare base.
    """
    found: list[MapReport] = []
    for known in maps_of(items).values():
        ways = ways_of(known)
        policy = route_policy(bench, known, trial)
        shared = tuple((path_text(one.path), one.routes) for one in macros(known))
        found.append(
            MapReport(
                known.name,
                len(known.places),
                sum(map(len, known.edges.values())),
                len(known.routes),
                simulated(known, [*known.routes, *ways.sub_routes][:MOST_ASKED], policy),
                simulated(known, ways.held_out[:MOST_ASKED], policy),
                shared,
            )
        )
    return found
