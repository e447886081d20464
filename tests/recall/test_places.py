"""What follows from trajectories: every derived way is one, the shortest is the shortest, the simulator
follows what was written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from loraloom.recall import places
from loraloom.recall.derived import derived_forms
from loraloom.recall.items import items_of
from loraloom.recall.places import PlaceMap
from loraloom.recall.routes import Path, route_answer, route_question, steps
from loraloom.recall.simulator import Walked, simulated, walked
from loraloom.recall.state import Entry

MOVES = {"north": (0, 1), "south": (0, -1), "east": (1, 0), "west": (-1, 0)}


@st.composite
def walked_maps(draw: st.DrawFn) -> PlaceMap:
    """A map that a few random trajectories on a grid of 4 x 4 drew."""
    known = PlaceMap("Harbour")
    for number in range(draw(st.integers(1, 5))):
        x, y = draw(st.integers(0, 3)), draw(st.integers(0, 3))
        path = [f"p{x}{y}"]
        for move in draw(st.lists(st.sampled_from(sorted(MOVES)), min_size=1, max_size=8)):
            dx, dy = MOVES[move]
            if 0 <= x + dx < 4 and 0 <= y + dy < 4:
                x, y = x + dx, y + dy
                path += [move, f"p{x}{y}"]
        if path[0] != path[-1] and (path[0], path[-1]) not in known.routes:
            known.add(tuple(path), f"m{number}")
    assume(known.routes)
    return known


def is_way(known: PlaceMap, path: Path) -> bool:
    return all(known.edges[place].get(move) == there for place, move, there in steps(path))


def floyd(known: PlaceMap) -> dict[tuple[str, str], int]:
    """All distances, in another way than by breadth first."""
    far = 10**6
    names = known.places
    found = {(a, b): 0 if a == b else far for a in names for b in names}
    for place, moves in known.edges.items():
        for there in moves.values():
            found[place, there] = min(found[place, there], 1)
    for by in names:
        for a in names:
            for b in names:
                found[a, b] = min(found[a, b], found[a, by] + found[by, b])
    return {pair: length for pair, length in found.items() if length < far}


@settings(max_examples=30)
@given(walked_maps())
def test_every_derived_way_is_one_and_goes_where_it_says(known: PlaceMap) -> None:
    ways = places.ways_of(known)
    for start, goal in (*ways.sub_routes, *ways.planned, *ways.held_out):
        path = known.shortest(start, goal)
        assert path is not None and is_way(known, path)
        assert (path[0], path[-1]) == (start, goal)
        assert walked(known, start, goal, route_answer(path)) == Walked(True, True, 1.0)
        items = known.items_of(path)
        assert all(set(known.sources[place, move]) & set(items) for place, move, _ in steps(path))
    assert all(is_way(known, path) and len(path) > 2 for path in ways.walks)


@settings(max_examples=30)
@given(walked_maps())
def test_the_shortest_is_the_shortest_and_its_rest_is_the_shortest_of_the_rest(known: PlaceMap) -> None:
    lengths = floyd(known)
    assert set(known.reachable()) == {pair for pair, length in lengths.items() if length}
    for start, goal in known.reachable():
        path = known.shortest(start, goal)
        assert path is not None and is_way(known, path)
        assert len(path) // 2 == lengths[start, goal]
        assert len(path) == 3 or known.shortest(path[2], goal) == path[2:]


@settings(max_examples=30)
@given(walked_maps())
def test_no_trained_question_asks_for_a_held_out_pair(known: PlaceMap) -> None:
    ways = places.ways_of(known)
    asked = {*known.routes, *ways.sub_routes, *ways.planned}
    asked |= {(path[0], path[-1]) for path in ways.walks}
    assert not asked & set(ways.held_out)
    shown = {pair for path in known.routes.values() for pair in _between(path)}
    assert not shown & {*ways.planned, *ways.held_out} and set(ways.sub_routes) <= shown
    # Maps as small as these are asked for as a whole.
    assert {*known.routes, *shown, *ways.planned, *ways.held_out} == set(known.reachable())


def _between(path: Path) -> set[tuple[str, str]]:
    stops = path[::2]
    return {(a, b) for at, a in enumerate(stops) for b in stops[at + 1 :] if a != b}


@settings(max_examples=30)
@given(walked_maps())
def test_a_shared_stretch_is_counted_right_and_lies_in_no_longer_one_of_as_many(known: PlaceMap) -> None:
    found = places.macros(known)
    for one in found:
        holds = [path for path in known.routes.values() if _holds(path, one.path)]
        assert len(holds) == one.routes >= places.FEWEST_SHARING
        assert not any(
            other.routes == one.routes and other != one and _holds(other.path, one.path)
            for other in found
        )


def _holds(path: Path, part: Path) -> bool:
    return any(path[at : at + len(part)] == part for at in range(0, len(path), 2))


@pytest.fixture
def known() -> PlaceMap:
    """a1, a2, a3 and below them b1, b2: two ways of two moves lead from a1 to b2."""
    found = PlaceMap("Harbour")
    found.add(("a2", "south", "b2", "west", "b1", "north", "a1"), "m1")
    found.add(("a1", "south", "b1", "east", "b2"), "m2")
    found.add(("a1", "east", "a2", "east", "a3"), "m3")
    return found


@pytest.mark.parametrize(
    ("written", "valid", "reached", "ratio"),
    [
        ("a1 to b2: east, a2 to b2: south, b2", True, True, 1.0),
        ("a1 to b2: south, b1 to b2: east, b2.", True, True, 1.0),
        (" a1 to b2 : south ,b1 to b2:east,  b2", True, True, 1.0),
        (
            "a1 to b2: south, b1 to b2: north, a1 to b2: south, b1 to b2: east, b2",
            True,
            True,
            2.0,
        ),
        ("a1 to a2: east, a2", False, False, None),
        ("a1 to b2: east, a2", True, False, None),
        ("a1 to b2: east, a2 to b2: south, b1", False, False, None),
        ("a1 to b2: east, a1 to b2: south, b2", False, False, None),
        ("a1 to b2: north, a2 to b2: south, b2", False, False, None),
        ("b2", False, False, None),
        ("", False, False, None),
        ("I do not know.", False, False, None),
    ],
)
def test_the_simulator_follows_what_was_written(
    known: PlaceMap, written: str, valid: bool, reached: bool, ratio: float | None
) -> None:
    assert walked(known, "a1", "b2", written) == Walked(valid, reached, ratio)


def test_a_policy_is_scored_over_all_pairs(known: PlaceMap) -> None:
    def shortest(pairs: Sequence[tuple[str, str]]) -> list[str]:
        return [route_answer(known.shortest(*pair) or ()) for pair in pairs]

    pairs = known.reachable()
    right = simulated(known, pairs, shortest)
    assert (right.pairs, right.valid, right.reached, right.ratio) == (len(pairs), 1, 1, 1)
    lost = simulated(known, pairs, lambda some: ["a1 to a2: east, a2"] * len(some))
    assert lost.reached == lost.valid == 1 / len(pairs)
    assert simulated(known, [], shortest).ratio is None


def test_where_trajectories_cross_a_way_follows_from_both(known: PlaceMap) -> None:
    """And of ways of one length, the one that somebody went is taken."""
    way = known.shortest("b1", "a3")
    assert way is not None
    assert way == ("b1", "north", "a1", "east", "a2", "east", "a3")
    assert known.items_of(way) == ("m1", "m3")
    assert known.shortest("a1", "b2") == ("a1", "south", "b1", "east", "b2")
    forms = {form.question: form for form in places.place_forms(entries_of(known))}
    crossing = forms.get(route_question("Harbour", "b1", "a3"))
    if crossing is None:
        unseen = places.place_forms(entries_of(known), held_out=True)
        (crossing,) = [one for one in unseen if one.question.endswith("from b1 to a3?")]
    assert crossing.answer == route_answer(way) and crossing.of == ("m1", "m3")
    assert not crossing.item


def entries_of(known: PlaceMap) -> list[Entry]:
    rows = [
        {"kind": "trajectory", "map": known.name, "path": list(path)} for path in known.routes.values()
    ]
    items = items_of([("", row) for row in rows], "2026-01-01")
    return [Entry(replace(item, id=f"m{at}")) for at, item in enumerate(items, 1)]


def test_what_is_forgotten_leaves_the_map(known: PlaceMap) -> None:
    entries = entries_of(known)
    assert "a3" in places.maps_of(one.item for one in entries)["Harbour"].places
    rest = derived_forms([entries[0], entries[1], replace(entries[2], standing="forgotten")])
    assert rest and not any("a3" in form.question for form in rest)


def test_macros_say_how_many_routes_share_a_stretch() -> None:
    known = PlaceMap("Harbour")
    for start in ("a", "b", "c"):
        known.add((start, "up", "m", "up", "n", "left", f"{start}2"))
        known.add((start, "up", "m", "up", "n", "up", "o"))
    assert [(one.path, one.routes) for one in places.macros(known)] == [(("m", "up", "n", "up", "o"), 3)]
    for start in ("d", "e"):
        known.add((start, "up", "m", "up", "n", "up", "o"))
    assert places.macros(known)[0].routes == 5
