"""What follows from trajectories: every derived way is one, the shortest is the shortest, the simulator
follows what was written."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from loraloom.recall import places
from loraloom.recall.places import PlaceMap
from loraloom.recall.routes import Path, route_answer, steps

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
        if path[0] != path[-1]:
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


@given(walked_maps())
def test_every_derived_way_is_one_and_goes_where_it_says(known: PlaceMap) -> None:
    derived = {**places.stretches(known), **places.planned(known)}
    for (start, goal), path in derived.items():
        assert (path[0], path[-1]) == (start, goal) and is_way(known, path)
        assert set(known.items_of(path)) <= {f"m{number}" for number in range(5)}
    assert all(is_way(known, path) for path in places.walks(known, 20))


@given(walked_maps())
def test_the_shortest_is_the_shortest_and_its_rest_is_the_shortest_of_the_rest(known: PlaceMap) -> None:
    lengths = floyd(known)
    assert set(known.reachable()) == {pair for pair, length in lengths.items() if length}
    for start, goal in known.reachable():
        path = known.shortest(start, goal)
        assert path is not None and is_way(known, path)
        assert len(path) // 2 == lengths[start, goal]
        assert len(path) == 3 or known.shortest(path[2], goal) == path[2:]


@given(walked_maps())
def test_nothing_that_is_trained_asks_for_a_held_out_pair(known: PlaceMap) -> None:
    planned, held = places.unwalked(known)
    trained = {*known.routes, *places.stretches(known), *places.planned(known)}
    assert not trained & set(held) and set(planned) <= trained
    assert trained | set(held) == set(known.reachable())
    assert not {(path[0], path[-1]) for path in places.walks(known, 20)} & set(held)


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
    """a1 - a2 - a3, and b1 - b2 below: from a1 to b2 there are two ways of two moves."""
    found = PlaceMap("Harbour")
    found.add(("a1", "east", "a2", "south", "b2", "west", "b1", "north", "a1"), "m1")
    found.add(("a1", "south", "b1", "east", "b2"), "m2")
    found.add(("a1", "east", "a2", "east", "a3"), "m3")
    return found


@pytest.mark.parametrize(
    ("written", "valid", "reached", "ratio"),
    [
        ("east a2, south b2", True, True, 1.0),
        ("South b1", False, False, None),
        ("south b1, east b2.", True, True, 1.0),
        ("south b1, north a1, south b1, east b2", True, True, 2.0),
        ("east a2", True, False, None),
        ("east a2, south a2", False, False, None),
        ("east a2, south b1", False, False, None),
        ("north a1, south b2", False, False, None),
        ("", False, False, None),
        ("I do not know.", False, False, None),
    ],
)
def test_the_simulator_follows_what_was_written(
    known: PlaceMap, written: str, valid: bool, reached: bool, ratio: float | None
) -> None:
    assert places.walked(known, "a1", "b2", written) == places.Walked(valid, reached, ratio)


def test_a_policy_is_scored_over_all_pairs(known: PlaceMap) -> None:
    def shortest(map_name: str, start: str, goal: str) -> str:
        path = known.shortest(start, goal)
        return route_answer(path) if path else ""

    pairs = known.reachable()
    right = places.simulated(known, pairs, shortest)
    assert (right.pairs, right.valid, right.reached, right.ratio) == (len(pairs), 1, 1, 1)
    lost = places.simulated(known, pairs, lambda *_: "east a2")
    into_a2 = sum(goal == "a2" and start == "a1" for start, goal in pairs)
    assert lost.reached == into_a2 / len(pairs) < lost.valid < 1


def test_a_route_that_replaces_another_leaves_only_its_own_steps() -> None:
    known = PlaceMap("Harbour")
    for name, path in (("m1", ("a", "up", "b", "up", "c")), ("m2", ("b", "up", "c", "up", "d"))):
        known.add(path, name)
    assert places.stretches(known) == {
        ("a", "b"): ("a", "up", "b"),
        ("b", "c"): ("b", "up", "c"),
        ("c", "d"): ("c", "up", "d"),
    }
    way = known.shortest("a", "d")
    assert way is not None
    assert way == ("a", "up", "b", "up", "c", "up", "d") and known.items_of(way) == ("m1", "m2")
    assert [place for place, _ in pairwise(way)][::2] == ["a", "b", "c"]
