"""Maps, as the kept trajectories draw them: which move leads where, and which ways follow from that.

Nothing is known of a map but what somebody walked: a wall stands where no trajectory goes, and no prompt
speaks of it. Three kinds of ways are derived, each asked as a question of its own: stretches of a
trajectory (who went from a to c by b has been shown the way from b to c: Andrychowicz et al., "Hindsight
experience replay", arXiv:1707.01495), routes planned over moves of several trajectories, and random
walks, which say what each move does and not what it is good for.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from loraloom.recall.items import MemoryItem
from loraloom.recall.routes import Path, leg, route_answer, steps

Pair = tuple[str, str]
"""A start and a goal."""
Policy = Callable[[str, str, str], str]
"""Writes a route for map, start and goal."""
HELD_OUT = 4
"""Of the pairs of places that nobody walked between, every so-manieth is never trained: such pairs only
measure whether a map was understood."""
WALK_MOVES = 4
"""Moves of a random walk."""
FEWEST_SHARING = 3
"""Routes that have a stretch in common before it is a macro."""
WALK_QUESTION = "In {map}, I go from {start}: {moves}. Where do I come by?"


@dataclass
class PlaceMap:
    """What is known of one map.

    Attributes:
        edges: place -> move -> the place where it leads.
        routes: the kept trajectory of each pair, by start and goal.
        sources: which items a step is known from, by place and move.
    """

    name: str
    edges: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    routes: dict[Pair, Path] = field(default_factory=dict[Pair, Path])
    sources: dict[Pair, list[str]] = field(default_factory=dict[Pair, list[str]])

    @property
    def places(self) -> list[str]:
        """All places, in the order of their names."""
        return sorted(self.edges)

    def add(self, path: Path, item: str = "") -> None:
        """Take a trajectory in."""
        self.routes[path[0], path[-1]] = path
        for place, move, there in steps(path):
            self.edges.setdefault(place, {})[move] = there
            self.edges.setdefault(there, {})
            self.sources.setdefault((place, move), []).append(item)

    def items_of(self, path: Path) -> tuple[str, ...]:
        """The items that a path follows from: the first one that knows each step."""
        return tuple(dict.fromkeys(self.sources[place, move][0] for place, move, _ in steps(path)))

    def distances(self, goal: str) -> dict[str, int]:
        """Moves from every place to a goal, of those from which it can be reached."""
        leads_here: dict[str, list[str]] = {}
        for place, moves in self.edges.items():
            for there in moves.values():
                leads_here.setdefault(there, []).append(place)
        found = {goal: 0}
        waiting = deque([goal])
        while waiting:
            there = waiting.popleft()
            for place in leads_here.get(there, ()):
                if place not in found:
                    found[place] = found[there] + 1
                    waiting.append(place)
        return found

    def shortest(self, start: str, goal: str) -> Path | None:
        """A shortest known path; None where there is none.

        Of several, the one whose moves come first in the alphabet: then the rest of a shortest path is
        the shortest path of the rest, and a policy has one thing to learn for each place and goal.
        """
        away = self.distances(goal)
        if start not in away or start == goal:
            return None
        path = [start]
        while path[-1] != goal:
            here = path[-1]
            nearer = away[here] - 1
            path += next(
                (move, there)
                for move, there in sorted(self.edges[here].items())
                if away.get(there) == nearer
            )
        return tuple(path)

    def reachable(self) -> list[Pair]:
        """All pairs of places with a known way between them."""
        return [
            (start, goal)
            for goal in self.places
            for start in sorted(self.distances(goal))
            if start != goal
        ]


def maps_of(items: Sequence[MemoryItem]) -> dict[str, PlaceMap]:
    """What trajectories say of each map, by its name."""
    found: dict[str, PlaceMap] = {}
    for item in items:
        if item.path:
            name = item.slots["map"]
            found.setdefault(name, PlaceMap(name)).add(item.path, item.id)
    return found


# -- ways that follow ----------------------------------------------------------------------------------


def stretches(known: PlaceMap) -> dict[Pair, Path]:
    """The way between every two places of a trajectory, the shortest where several show one; without
    the trajectories' own pairs."""
    found: dict[Pair, Path] = {}
    for path in known.routes.values():
        for first in range(0, len(path) - 2, 2):
            for last in range(first + 2, len(path), 2):
                pair, way = (path[first], path[last]), path[first : last + 1]
                if pair[0] != pair[1] and len(way) < len(found.get(pair, (*way, ""))):
                    found[pair] = way
    return {pair: way for pair, way in found.items() if pair not in known.routes}


def unwalked(known: PlaceMap) -> tuple[list[Pair], list[Pair]]:
    """The pairs that no trajectory leads between though a way is known: those that may be trained, and
    those that are held out."""
    walked = {*known.routes, *stretches(known)}
    planned: list[Pair] = []
    held: list[Pair] = []
    for pair in known.reachable():
        if pair not in walked:
            (planned if _number(known.name, *pair) % HELD_OUT else held).append(pair)
    return planned, held


def planned(known: PlaceMap) -> dict[Pair, Path]:
    """Shortest known paths over steps of several trajectories, between pairs that may be trained."""
    pairs, _ = unwalked(known)
    return {pair: path for pair in pairs if (path := known.shortest(*pair))}


def walks(known: PlaceMap, count: int, seed: int = 0) -> list[Path]:
    """Different random walks over known edges, `count` of them at most; none from the start of a
    held-out pair to its goal."""
    rng = random.Random(_number(known.name, str(seed)))
    starts = [place for place in known.places if known.edges[place]]
    held = set(unwalked(known)[1])
    found: dict[Path, None] = {}
    for _ in range(4 * count):
        path = [rng.choice(starts)]
        while len(path) < 2 * WALK_MOVES and (moves := known.edges[path[-1]]):
            path += rng.choice(sorted(moves.items()))
        if (path[0], path[-1]) not in held:
            found[tuple(path)] = None
        if len(found) == count:
            break
    return list(found)


def walk_question(map_name: str, path: Path) -> str:
    """How a walk is asked for: by its start and its moves."""
    return WALK_QUESTION.format(map=map_name, start=path[0], moves=", ".join(path[1::2]))


@dataclass(frozen=True)
class Macro:
    """A stretch that many routes share.

    Attributes:
        routes: how many trajectories have it.
    """

    map: str
    path: Path
    routes: int

    @property
    def text(self) -> str:
        return f"{self.path[0]}: {route_answer(self.path)}"


def macros(known: PlaceMap) -> list[Macro]:
    """Stretches of two moves and more that at least `FEWEST_SHARING` trajectories have, the most shared
    first; without those that lie in a longer one of as many."""
    counts: Counter[Path] = Counter()
    for path in known.routes.values():
        ways = {
            path[first : last + 1]
            for first in range(0, len(path) - 4, 2)
            for last in range(first + 4, len(path), 2)
        }
        counts.update(ways)
    shared = {path: count for path, count in counts.items() if count >= FEWEST_SHARING}
    # A stretch lies in a longer one of as many routes exactly if it lies in one that is a move longer.
    longer = {(one[cut], count) for one, count in shared.items() for cut in (slice(2, None), slice(-2))}
    found = [
        Macro(known.name, path, count) for path, count in shared.items() if (path, count) not in longer
    ]
    return sorted(found, key=lambda one: (-one.routes, -len(one.path), one.path))


# -- the simulator -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Walked:
    """Where a written route leads.

    Attributes:
        valid: every step exists and leads where it says.
        reached: it is valid and ends at the goal.
        ratio: its moves over those of the shortest path; None where the goal is not reached.
    """

    valid: bool
    reached: bool
    ratio: float | None


def walked(known: PlaceMap, start: str, goal: str, written: str) -> Walked:
    """Follow a written route on a map, step by step."""
    here, moves = start, 0
    for said in (part.strip() for part in written.strip().rstrip(".").split(",")):
        leads = {leg(move, there): there for move, there in known.edges.get(here, {}).items()}
        if said not in leads:
            return Walked(False, False, None)
        here, moves = leads[said], moves + 1
    if here != goal:
        return Walked(True, False, None)
    return Walked(True, True, moves / max(1, known.distances(goal)[start]))


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


def simulated(known: PlaceMap, pairs: Sequence[Pair], policy: Policy) -> RouteScore:
    """What a policy makes of these pairs."""
    return scored([walked(known, *pair, policy(known.name, *pair)) for pair in pairs])


def _number(*words: str) -> int:
    """A number of these words, the same on every machine."""
    digest = hashlib.blake2b("\n".join(words).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")
