"""Maps, as the kept trajectories draw them: which move leads where, and which ways follow from that.

Nothing is known of a map but what somebody walked: where no trajectory goes there may be a wall, and no
prompt speaks of it. Three kinds of ways are derived, each asked as a question of its own: between two
places of one trajectory (who went from a by b to c was shown the way from b to c: Andrychowicz et al.,
"Hindsight experience replay", arXiv:1707.01495), planned over steps of several trajectories, and random
walks, which say what each move does and not what it is good for.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from loraloom.recall.forms import Derived, Form
from loraloom.recall.items import MemoryItem
from loraloom.recall.routes import (
    Path,
    route_answer,
    route_question,
    steps,
    walk_answer,
    walk_question,
)
from loraloom.recall.state import Entry

Pair = tuple[str, str]
"""A start and a goal."""
HELD_OUT = 4
"""Of the pairs of places that nobody walked between, every so-manieth is never trained: such pairs only
measure whether a map was understood."""
WALK_MOVES = 4
"""Moves of a random walk."""
SUB_ROUTES, PLANNED, WALKS = 16.0, 12.0, 6.0
"""Questions for each trajectory of a map, at most: their number grows with the square of the places."""
MOST_UNSEEN = 60
"""Held-out pairs of a map that are asked for."""
WAY_KINDS = frozenset(("sub_route", "planned_route", "walk"))
"""Of forms that follow: those that are ways on a map, and trained."""
FEWEST_SHARING = 3
"""Routes that have a stretch in common before it is a macro."""


@dataclass
class PlaceMap:
    """What is known of one map.

    Attributes:
        edges: place -> move -> the place where it leads.
        routes: the kept trajectory of each pair, by start and goal.
        sources: which items a step is known from, by place and move.
        towards: the move that some trajectory made from a place on its way to another.
    """

    name: str
    edges: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    routes: dict[Pair, Path] = field(default_factory=dict[Pair, Path])
    sources: dict[Pair, list[str]] = field(default_factory=dict[Pair, list[str]])
    towards: dict[Pair, str] = field(default_factory=dict[Pair, str])

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
        for number, (place, move, _) in enumerate(steps(path)):
            for later in path[2 * number + 2 :: 2]:
                self.towards.setdefault((place, later), move)

    def items_of(self, path: Path) -> tuple[str, ...]:
        """The items that a path follows from: one that knows all of its steps, else the first one that
        knows each."""
        known = [self.sources[place, move] for place, move, _ in steps(path)]
        whole = [item for item in known[0] if all(item in items for items in known)]
        return (whole[0],) if whole else tuple(dict.fromkeys(items[0] for items in known))

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

        Of several, the one that a trajectory took, else the one whose moves come first in the alphabet:
        so the rest of such a path is the path of the rest, and a policy has one thing to learn for each
        place and goal.
        """
        away = self.distances(goal)
        if start not in away or start == goal:
            return None
        path = [start]
        while path[-1] != goal:
            here = path[-1]
            nearer = {
                move: there
                for move, there in sorted(self.edges[here].items())
                if away.get(there) == away[here] - 1
            }
            usual = self.towards.get((here, goal))
            move = usual if usual in nearer else next(iter(nearer))
            path += [move, nearer[move]]
        return tuple(path)

    def reachable(self) -> list[Pair]:
        """All pairs of places with a known way between them."""
        return [
            (start, goal)
            for goal in self.places
            for start in sorted(self.distances(goal))
            if start != goal
        ]


def maps_of(items: Iterable[MemoryItem]) -> dict[str, PlaceMap]:
    """What trajectories say of each map, by its name."""
    found: dict[str, PlaceMap] = {}
    for item in items:
        if item.path:
            name = item.slots["map"]
            found.setdefault(name, PlaceMap(name)).add(item.path, item.id)
    return found


# -- ways that follow ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ways:
    """What follows from a map.

    Attributes:
        sub_routes: pairs of places of one trajectory, but for its own start and goal.
        planned: pairs that no trajectory leads between, though a way is known.
        held_out: the same, never trained: no trained question asks for them.
        walks: random walks; none leads from the start of a held-out pair to its goal.
    """

    sub_routes: list[Pair]
    planned: list[Pair]
    held_out: list[Pair]
    walks: list[Path]


def ways_of(known: PlaceMap) -> Ways:
    """What follows from a map, always the same for the same trajectories."""
    pairs = [pair for pair in known.reachable() if pair not in known.routes]
    pairs.sort(key=lambda pair: _number(known.name, *pair))
    sub_routes = [pair for pair in pairs if pair in known.towards]
    others = [pair for pair in pairs if pair not in known.towards]
    held_out = [pair for pair in others if _number(known.name, *pair) % HELD_OUT == 0]
    planned = [pair for pair in others if pair not in held_out]
    count = len(known.routes)
    return Ways(
        sub_routes[: round(SUB_ROUTES * count)],
        planned[: round(PLANNED * count)],
        held_out,
        _walks(known, round(WALKS * count), set(held_out)),
    )


def _walks(known: PlaceMap, count: int, held_out: set[Pair]) -> list[Path]:
    rng = random.Random(_number(known.name))
    starts = [place for place in known.places if known.edges[place]]
    found: dict[Path, None] = {}
    for _ in range(4 * count):
        path = [rng.choice(starts)]
        while len(path) <= 2 * WALK_MOVES and (moves := known.edges[path[-1]]):
            path += rng.choice(sorted(moves.items()))
        if (path[0], path[-1]) not in held_out:
            found[tuple(path)] = None
        if len(found) == count:
            break
    return list(found)


def longest_routes(known: PlaceMap) -> list[Path]:
    """A shortest path of most moves, and the trajectories, which may go a longer way."""
    away = [
        (steps, start, goal) for goal in known.places for start, steps in known.distances(goal).items()
    ]
    _, start, goal = max(away, default=(0, "", ""))
    path = known.shortest(start, goal) if away else None
    return [*known.routes.values(), *([path] if path else [])]


def place_forms(entries: Sequence[Entry], *, held_out: bool = False) -> list[Form]:
    """The questions that follow from the trajectories that are kept.

    Args:
        held_out: those that are never trained, instead of those that are.
    """
    found: list[Form] = []
    for known in maps_of(entry.item for entry in entries).values():
        ways = ways_of(known)
        if held_out:
            found += [_route_form(known, pair, "unseen_route") for pair in ways.held_out[:MOST_UNSEEN]]
            continue
        found += [_route_form(known, pair, "sub_route") for pair in ways.sub_routes]
        found += [_route_form(known, pair, "planned_route") for pair in ways.planned]
        for path in ways.walks:
            asked, said = walk_question(known.name, path), walk_answer(path)
            found.append(Form("", asked, said, kind="walk", of=known.items_of(path)))
    return found


def _route_form(known: PlaceMap, pair: Pair, kind: Derived) -> Form:
    path = known.shortest(*pair)
    assert path is not None
    question = route_question(known.name, *pair)
    return Form("", question, route_answer(path), kind=kind, of=known.items_of(path))


# -- macros --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Macro:
    """A stretch that many routes share.

    Attributes:
        routes: how many trajectories have it.
    """

    map: str
    path: Path
    routes: int


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


def _number(*words: str) -> int:
    """A number of these words, the same on every machine."""
    digest = hashlib.blake2b("\n".join(words).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")
