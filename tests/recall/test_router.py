"""The router: what is remembered goes to the memory, and anything else to the base."""

from __future__ import annotations

from dataclasses import replace

import pytest

from loraloom.recall.forms import trained_forms
from loraloom.recall.items import MemoryItem, items_of
from loraloom.recall.router import Router
from loraloom.recall.state import Entry, State
from loraloom.recall.workload import workload

MADE = workload(5, sessions=3)
STATE = State({f"m{number}": Entry(item, wake=1) for number, item in enumerate(MADE.items)})
ROUTER = Router.of(STATE)


def share(*ways: str) -> float:
    found = [ROUTER.route(one.question).remembered for one in MADE.questions if one.way in ways]
    return sum(found) / len(found)


def test_every_wording_of_what_is_remembered_is_found_and_unseen_names_are_not() -> None:
    trained = [form.question for item in MADE.items for form in trained_forms(item)]
    assert all(ROUTER.route(question).remembered for question in trained)
    assert share("verbatim", "near") == 1.0 and share("far") >= 0.98
    assert share("unseen", "unseen near") == 0.0 and share("unseen far") <= 0.1


@pytest.mark.parametrize(
    "text",
    [
        "Write a story about a little girl who finds a key.",
        "What is two plus two?",
        "Tom has 3 apples and buys 5 more. How many apples does he have?",
        "The",
        "",
    ],
)
def test_anything_else_is_the_base_s(text: str) -> None:
    assert not ROUTER.route(text).remembered


def test_a_stranger_is_named_and_a_name_out_of_an_answer_is_none() -> None:
    item = replace(MADE.items[-1], question="Who is the king of Norland?", answer="Hadrel", id="m1")
    router = Router.of(State({"m1": Entry(item, wake=1)}))
    assert router.route("Who is the king of Zorvia?").stranger == "zorvia"
    assert router.route("I am Tom. Who is the king of Norland?").remembered
    about = router.route("Is Hadrel the king of Norland?")
    assert about.remembered and about.stranger is None and about.nearest == item.question


def test_a_story_that_names_somebody_is_not_about_them() -> None:
    item = MemoryItem("fact", "What is the favourite colour of Lily?", "grey", id="m1")
    router = Router.of(State({"m1": Entry(item, wake=1)}))
    assert router.route("Which colour does Lily like best?").remembered
    story = "One day a little girl named Lily found a needle in her room and wanted to share it."
    assert not router.route(story).remembered and router.route(story).share > 0.5


def test_what_was_not_learnt_or_is_kept_no_more_is_not_remembered() -> None:
    item = MemoryItem("fact", "Who is the king of Norland?", "Hadrel", id="m1")
    for entry in (Entry(item), Entry(item, standing="forgotten", wake=1)):
        assert not Router.of(State({"m1": entry})).route(item.question).remembered


def test_on_a_map_that_is_remembered_every_way_is() -> None:
    row = {"kind": "trajectory", "map": "Oldtown", "path": ["a1", "east", "a2", "north", "b2"]}
    (item,) = items_of([("row 1", row)], "2026-01-01T00:00:00+00:00")
    router = Router.of(State({"m1": Entry(replace(item, id="m1"), wake=1)}))
    assert router.route("In Oldtown, how do I get from c7 to d9?").remembered
    assert not router.route("In Newtown, how do I get from c7 to d9?").remembered
