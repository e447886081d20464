"""Following a written route on a map: does every step exist, is the goal reached, how long was it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loraloom.recall.places import Pair, PlaceMap
from loraloom.recall.routes import step_text

Policy = Callable[[Sequence[Pair]], Sequence[str]]
"""Writes a route for each start and goal."""


@dataclass(frozen=True)
class Walked:
    """Where a written route leads.

    Attributes:
        valid: every step is possible, and begins where the one before it ended.
        reached: it is valid and ends at the goal.
        ratio: its moves over those of the shortest path; None where the goal is not reached.
    """

    valid: bool
    reached: bool
    ratio: float | None


@dataclass(frozen=True)
class RouteScore:
    """How a policy did on some pairs.

    Attributes:
        valid, reached: shares of the pairs.
        ratio: moves over those of the shortest path, the mean over what was reached; None for nothing.
    """

    pairs: int
    valid: float
    reached: float
    ratio: float | None


def walked(known: PlaceMap, start: str, goal: str, written: str) -> Walked:
    """Follow a written route, "a1 to b2: east, a2 to b2: north, b2", step by step."""
    *said, last = [_spaced(part) for part in written.strip().rstrip(".").split(",")]
    here = start
    for step in said:
        leads = {step_text(here, goal, move): there for move, there in known.edges[here].items()}
        if step not in leads:
            return Walked(False, False, None)
        here = leads[step]
    if last != here:
        return Walked(False, False, None)
    if here != goal or start == goal:
        return Walked(True, False, None)
    return Walked(True, True, len(said) / known.distances(goal)[start])


def _spaced(step: str) -> str:
    """White space as `step_text` puts it."""
    return " ".join(step.replace(":", ": ").split()).replace(" :", ":")


def simulated(known: PlaceMap, pairs: Sequence[Pair], policy: Policy) -> RouteScore:
    """What a policy makes of these pairs."""
    written = policy(pairs) if pairs else []
    return scored([walked(known, *pair, text) for pair, text in zip(pairs, written, strict=True)])


def scored(found: Sequence[Walked]) -> RouteScore:
    """The score of routes that were followed."""
    ratios = [one.ratio for one in found if one.ratio is not None]
    count = max(1, len(found))
    return RouteScore(
        len(found),
        sum(one.valid for one in found) / count,
        sum(one.reached for one in found) / count,
        sum(ratios) / len(ratios) if ratios else None,
    )
