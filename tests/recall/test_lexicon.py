"""Words: rare ones tell questions apart, and a repeat is known by them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from loraloom.recall.items import MemoryItem
from loraloom.recall.lexicon import Lexicon, name_words
from loraloom.recall.repeats import Repeats
from loraloom.recall.state import Entry
from loraloom.recall.workload import workload

MADE = workload(3, sessions=3)
ITEMS = [replace(item, id=f"m{number}") for number, item in enumerate(MADE.items)]
REPEATS = Repeats([Entry(item) for item in ITEMS])


def test_every_other_wording_shares_most_with_its_own_question() -> None:
    lexicon = Lexicon([item.question for item in ITEMS])
    asked = [one for one in MADE.questions if one.item >= 0]
    events = [one for one in asked if ITEMS[one.item].kind == "event"]
    assert all(lexicon.cosines(one.question).argmax() == one.item for one in events)
    near = [one for one in asked if one.way == "near"]
    assert all(lexicon.covered(one.question).argmax() == one.item for one in near)


def test_names_begin_no_sentence() -> None:
    assert name_words("Who is Ada's friend? Is it Olaf Grey or I?") == {"ada", "olaf", "grey"}
    assert name_words("Norland is where? Please tell me.") == set()


def test_the_same_in_other_words_is_a_repeat_and_near_collisions_are_none() -> None:
    near = [one for one in MADE.questions if one.way == "near"]
    found = [REPEATS.of(replace(ITEMS[one.item], question=one.question)) for one in near]
    assert [entry.id if entry else None for entry in found] == [f"m{one.item}" for one in near]
    for item in ITEMS:
        for other in ITEMS:
            if item.answer != other.answer:
                # The question of one thing with the answer of another: never the other one.
                assert REPEATS.of(replace(item, answer=other.answer)) is None


@pytest.mark.parametrize(
    "question",
    [
        "Where was it that Ada found a key on Friday?",
        "Where was it that Ada found 2 keys on Monday?",
        "Where was it that Olaf found a key on Monday?",
        "Where was it that Ada found a key?",
    ],
)
def test_one_slot_that_differs_is_no_repeat(question: str) -> None:
    stored = MemoryItem("event", "Where was it that Ada found a key on Monday?", "in the barn", id="m1")
    again = replace(stored, question="Please tell me where it was that Ada found a key on Monday.")
    repeats = Repeats([Entry(stored)])
    assert repeats.of(replace(stored, question=question)) is None
    assert (found := repeats.of(again)) is not None and found.id == "m1"
    assert repeats.of(replace(again, answer="in the mill")) is None
