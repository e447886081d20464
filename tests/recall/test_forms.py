"""Forms: what is trained never measures, and unseen names are nobody's."""

from __future__ import annotations

import re

import pytest

from loraloom.recall.forms import (
    NOT_KNOWN,
    held_out_forms,
    named_in,
    names_of,
    trained_forms,
    unknown_forms,
    vague_forms,
)
from loraloom.recall.items import MemoryItem

ITEMS = [
    MemoryItem("fact", question, "Tolm", id=f"m{number}")
    for number, question in enumerate(
        (
            "What is the capital of Norland?",
            "Who is Ada's oldest friend?",
            "Where did Wanda lose her umbrella?",
            "Who won the pie contest in Ellerby?",
            "Tell me the code of the safe",
            "Where are the keys?",
        )
    )
]


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item.question)
def test_no_held_out_form_is_trained(item: MemoryItem) -> None:
    trained = [form.question for form in trained_forms(item)]
    held_out = [form.question for form in held_out_forms(item)]
    assert trained[0] == item.question and len(set(trained)) == len(trained) >= 5
    assert not set(trained) & set(held_out)
    assert {form.distance for form in held_out_forms(item)} == {"near", "far"}


def test_a_vague_question_is_asked_where_only_one_answer_can_be_meant() -> None:
    again = MemoryItem("fact", "What is the flag of Norland?", "a star", id="m9")
    alone = vague_forms(ITEMS, 4)
    assert {form.item for form in alone} == {"m0", "m1"}
    assert not any("capital" in form.question for form in alone)
    both = [form for form in vague_forms([*ITEMS, again], 4) if form.item != "m1"]
    assert {form.item for form in both} == {"m0", "m9"}
    assert all(("flag" in form.question.casefold()) == (form.item == "m9") for form in both)
    assert all(("capital" in form.question.casefold()) == (form.item == "m0") for form in both)


def test_names_like_the_stored_ones_are_not_stored() -> None:
    taken = names_of(ITEMS)
    made = unknown_forms(ITEMS[:3], taken, names=40, seed=3, alike=1.0)
    assert all(re.search("(No|Ad|Wa)|(land|a|nda)\\b", form.question) for form in made)
    assert not any(re.search(r"\bNorland\b", form.question) for form in made)


def test_the_person_s_own_forms_are_trained_and_then_measure_nothing() -> None:
    item = ITEMS[0]
    mine = held_out_forms(item)[0].question
    given = MemoryItem("fact", item.question, "Tolm", forms=(mine,))
    assert mine in [form.question for form in trained_forms(given)]
    assert mine not in [form.question for form in held_out_forms(given)]


def test_unseen_names_are_not_those_of_the_memory_and_others_than_those_that_measure() -> None:
    taken = names_of(ITEMS)
    assert {"norland", "wanda", "tolm"} <= taken
    trained = unknown_forms(ITEMS, taken, names=6, seed=1)
    measured = unknown_forms(ITEMS, taken, names=6, seed=1, held_out=True)
    assert {form.answer for form in (*trained, *measured)} == {NOT_KNOWN}
    assert not {form.question for form in trained} & {form.question for form in measured}
    assert not any(name in form.question.casefold().split() for form in trained for name in ("norland",))
    assert trained == unknown_forms(ITEMS, taken, names=6, seed=1)


def test_names_are_found_inside_questions() -> None:
    assert [named_in(item.question) for item in ITEMS] == [
        "Norland",
        "Ada",
        "Wanda",
        "Ellerby",
        None,
        None,
    ]
