"""From rows to items: what is asked, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from loraloom.errors import DataError
from loraloom.recall.items import MemoryItem, items_of, key_of

NOW = "2026-01-01T00:00:00+00:00"


def read(*rows: dict[str, Any]) -> list[MemoryItem]:
    return items_of([(f"row {number}", row) for number, row in enumerate(rows, 1)], NOW)


def test_statements_and_facts_become_questions() -> None:
    made = read(
        {"statement": "The capital of Norland is Tolm."},
        {"statement": "Ada's dog is Rex"},
        {"subject": "Norland", "relation": "flag", "object": "a green star"},
    )
    assert [(one.question, one.answer) for one in made] == [
        ("What is the capital of Norland?", "Tolm"),
        ("What is the dog of Ada?", "Rex"),
        ("What is the flag of Norland?", "a green star"),
    ]


def test_an_event_is_asked_for_each_of_its_slots_or_for_one() -> None:
    event = {"kind": "event", "who": "Ada", "what": "found a key", "where": "in the barn"}
    assert [one.answer for one in read(event)] == ["Ada", "found a key", "in the barn"]
    (one,) = read({**event, "ask": "where"})
    assert one.question == "Where was it that Ada found a key?" and one.answer == "in the barn"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"question": "Where?", "answer": " "}, "`answer` is empty"),
        ({"question": "Where?"}, "`answer` is empty"),
        ({"question": "Where?", "answer": "x" * 3000}, "3,000 characters"),
        ({"kind": "song", "question": "Where?", "answer": "here"}, "event, fact or trajectory"),
        ({"question": "Where?", "answer": "here", "colour": "red"}, "`colour` is no key"),
        ({"statement": "It rained."}, "no question is seen"),
        ({"subject": "Norland", "relation": "flag"}, "without its `object`"),
        ({"question": "Where?", "answer": "here", "salience": 0}, "`salience` is 0"),
        ({"question": "Where?", "answer": "here", "forms": "how"}, "list of questions"),
        ({"question": "Where?", "answer": "here", "time": "yesterday"}, "ISO 8601"),
        ({"question": "Where?", "answer": "here", "types": {"who": "king"}}, "`types` is"),
        ({"question": "Where?", "answer": "here", "types": "king"}, "`types` is"),
        ({}, "nothing is asked"),
    ],
)
def test_a_row_that_cannot_be_an_item_is_named_with_its_place(row: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match="row 1") as error:
        read(row)
    assert said in str(error.value)


def test_two_answers_to_one_question_in_one_write_are_refused() -> None:
    with pytest.raises(DataError, match="two answers") as error:
        read(
            {"question": "What is the capital of Norland?", "answer": "Tolm"},
            {"question": "what is Norland's capital", "answer": "Brek"},
        )
    assert "`Tolm` (row 1) and `Brek`" in str(error.value)


def test_keys_see_through_case_and_the_order_of_relation_and_subject() -> None:
    same = {key_of(one) for one in ("What is the flag of Norland?", "what is Norland's flag")}
    assert len(same) == 1
    assert key_of("What is the flag of Sudland?") not in same
