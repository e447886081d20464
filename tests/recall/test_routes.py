"""Paths on a map: how a row gives them, how they are asked and answered, and what is refused."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest

from loraloom.errors import DataError
from loraloom.recall.items import MemoryItem, check_maps, item_of_plain, items_of

HARBOUR = {"kind": "trajectory", "map": "Harbour", "path": ["a1", "east", "a2", "north", "b2"]}


def read(*rows: dict[str, Any]) -> list[MemoryItem]:
    return items_of([(f"row {number}", row) for number, row in enumerate(rows, 1)], "2026-01-01")


def harbour(*path: str) -> dict[str, Any]:
    return {**HARBOUR, "path": list(path)}


def test_a_path_becomes_a_question_for_its_last_place() -> None:
    (one,) = read(HARBOUR)
    assert one.question == "In Harbour, how do I get from a1 to b2?"
    assert one.answer == "a1 to b2: east, a2 to b2: north, b2"
    assert one.path == ("a1", "east", "a2", "north", "b2") and one.slots == {"map": "Harbour"}
    assert read({**HARBOUR, "path": [["a1", "east"], ["a2", "north"], ["b2"]]}) == [one]
    assert item_of_plain({**asdict(one), "path": list(one.path)}) == one


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (harbour("a1"), "places and moves in turn"),
        (harbour("a1", "east"), "places and moves in turn"),
        (harbour("a1", "east", "north", "b2"), "places and moves in turn"),
        (harbour("a1", "east", "north", "b2", "east"), "`east` stands where a place does"),
        (harbour("a1", "east", "a2", "west", "a1"), "ends where it begins"),
        (harbour("a1", "east", " "), "a place without a name"),
        (harbour("a1", "", "a2"), "a move without a name"),
        (harbour("a1", "east", "a2, north"), "no comma"),
        ({**HARBOUR, "map": ""}, "a map without a name"),
        ({**HARBOUR, "path": "a1 east a2"}, "has to be a list"),
        ({**HARBOUR, "path": [1, 2, 3]}, "a place without a name"),
        ({**HARBOUR, "answer": "east"}, "`answer` is no key of a trajectory"),
        ({"map": "Harbour", "path": ["a1", "east", "a2"]}, "`map` is no key of an item"),
    ],
)
def test_a_row_that_is_no_path_is_named_with_its_place(row: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match="row 1") as error:
        read(row)
    assert said in str(error.value)


def test_a_move_from_a_place_leads_to_one_place_of_a_map() -> None:
    there, elsewhere = harbour("a1", "east", "a2"), harbour("c1", "south", "a1", "east", "d1")
    with pytest.raises(DataError, match="leads to two places") as error:
        read(there, elsewhere)
    assert "`a2` (row 1) and `d1`" in str(error.value) and "row 2" in str(error.value)
    assert len(read(there, {**elsewhere, "map": "Old Town"})) == 2
    with pytest.raises(DataError, match="leads to two places"):
        read(harbour("a1", "east", "a2", "west", "a1", "east", "b1"))


def test_two_routes_between_the_same_places_in_one_write_are_refused() -> None:
    with pytest.raises(DataError, match="two answers"):
        read(HARBOUR, harbour("a1", "north", "b1", "east", "b2"))


def test_a_step_may_not_contradict_what_is_kept_unless_it_replaces_that() -> None:
    (kept,) = (replace(one, id="m0001") for one in read(HARBOUR))
    check_maps(read(harbour("a1", "north", "b1")), [kept])
    with pytest.raises(DataError, match="leads to two places") as error:
        check_maps(read(harbour("a1", "east", "a5")), [kept])
    assert "`a2` (m0001) and `a5`" in str(error.value) and "forget" in str(error.value)
    check_maps(read(harbour("a1", "east", "a5", "north", "b2")), [kept])
