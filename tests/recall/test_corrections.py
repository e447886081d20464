"""Another answer to what is known: recognised in other words where that is certain, said where it is
not, and given by hand."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest

from loraloom.errors import RequestError
from loraloom.recall.corrections import asks_the_same, check_corrections, corrected
from loraloom.recall.forgotten import Forgotten
from loraloom.recall.forms import trained_forms
from loraloom.recall.gate import Decision, Seen, decided
from loraloom.recall.items import MemoryItem
from loraloom.recall.repeats import Repeats
from loraloom.recall.state import Entry, State, replayed
from loraloom.recall.workload import NOBODY, workload

CAPITAL = "What is the capital of Norland?"
FOUND = "Who was it that found a key in the barn on Monday?"
NOTHING = np.zeros((0, 8), dtype=np.float32)


@pytest.mark.parametrize(
    ("question", "stored"),
    [
        ("Please tell me what Norland's capital is called.", CAPITAL),
        ("The capital of Norland, do you remember it?", CAPITAL),
        ("Which city is the capital of Norland?", CAPITAL),
        (f"Do you know? {FOUND}", FOUND),
        ("Tell me: who was it that found a key in the barn on Monday?", FOUND),
    ],
)
def test_the_same_asked_among_words_that_only_ask_is_the_same(question: str, stored: str) -> None:
    assert asks_the_same(question, stored)


@pytest.mark.parametrize(
    ("question", "stored"),
    [
        ("What was the former capital of Norland?", CAPITAL),
        ("Which capital did Norland not have?", CAPITAL),
        ("Which second city is the capital of Norland?", CAPITAL),
        ("What is the capital of New Norland?", CAPITAL),
        ("What is the flag of the capital of Norland?", CAPITAL),
        ("Who is the father of Ada's mother?", "Who is the mother of Ada's father?"),
        ("Who was it that hid a key in the barn on Monday?", FOUND),
        ("Who was it that found a key in the barn on Monday morning?", FOUND),
    ],
)
def test_what_asks_for_more_or_for_less_is_not_the_same(question: str, stored: str) -> None:
    assert not asks_the_same(question, stored)


def test_of_hundreds_of_items_none_is_taken_for_another_and_near_wordings_are_recognised() -> None:
    made = workload(0)
    items = [replace(item, id=str(number)) for number, item in enumerate(made.items)]
    known = Repeats([Entry(item) for item in items])
    near = 0
    for one in made.questions:
        if one.item != NOBODY:
            new = MemoryItem("fact", one.question, "something else")
            found = known.corrected_by(new)
            assert found is None or found.id == str(one.item)
            near += one.way == "near" and found is not None
    # Three near wordings of each.
    assert near > 0.9 * 3 * len(items)
    for item in items:
        rest = Repeats([Entry(other) for other in items if other.key != item.key])
        assert rest.beside(replace(item, answer="something else")) is None


def written(state: State, question: str, answer: str, **more: Any) -> Decision:
    item = MemoryItem("fact", question, answer, **more)
    seen = [Seen(item, 6.0, False, np.zeros(8, dtype=np.float32))]
    return decided(seen, state, NOTHING, NOTHING, guessing=8.0)[0]


def after(*decisions: Decision) -> State:
    return replayed({"op": "write", "at": "", "decisions": [asdict(one)]} for one in decisions)


def test_a_correction_in_other_words_is_the_stored_question_with_the_new_answer() -> None:
    first = written(State(), CAPITAL, "Tolm", forms=("From where is Norland governed?",))
    again = written(after(first), "Please tell me what Norland's capital is called.", "Brek")
    assert (again.outcome, again.other) == ("supersede", "m0001")
    assert "in other words" in again.reason and "Tolm" in again.reason
    (kept,) = after(first, again).kept
    assert (kept.id, kept.item.question, kept.item.answer) == ("m0002", CAPITAL, "Brek")
    asked = [form.question for form in trained_forms(kept.item)]
    # Every wording that had the old answer has the new one.
    assert {form.question for form in trained_forms(first.item)} < set(asked)
    assert again.item.forms[0] in asked


def test_what_asks_nearly_the_same_is_written_and_said_to_be_near() -> None:
    first = written(State(), FOUND, "Ada")
    again = written(after(first), "Which person was it that found a key in the barn on Monday?", "Olaf")
    assert (again.outcome, again.other, again.item.supersedes) == ("insert", "m0001", None)
    assert "m0001 asks nearly the same, which says `Ada`" in again.reason
    state = after(first, again)
    assert [entry.id for entry in state.kept] == ["m0001", "m0002"]
    gone = {"op": "forget", "id": "m0001", "committed": True, "rebuilt": False, "losses": {}}
    records = [{"op": "write", "at": "", "decisions": [asdict(one)]} for one in (first, again)]
    forgotten = Forgotten(replayed([*records, {**gone, "generation": 0, "proof": None}]))
    assert "Ada" not in str(forgotten.decision(asdict(again)))


def test_what_says_which_item_it_corrects_takes_its_place_whatever_its_words_and_its_time() -> None:
    first = written(
        State(), FOUND, "Ada", slots={"who": "Ada", "what": "found a key"}, time="2026-03-01"
    )
    again = written(after(first), "Whose find was it?", "Olaf", supersedes="m0001", time="2026-02-01")
    assert again.outcome == "supersede" and again.item.question == FOUND
    assert again.item.forms == ("Whose find was it?",)
    assert again.item.slots == {"who": "Olaf", "what": "found a key"}


def test_a_correction_in_the_same_words_keeps_the_other_wordings() -> None:
    old = MemoryItem("fact", CAPITAL, "Tolm", forms=("From where is Norland governed?",), id="m0001")
    new = MemoryItem("fact", "what is Norland's capital", "Brek", forms=("Norland: which capital?",))
    made = corrected(old, new)
    assert (made.question, made.supersedes) == (new.question, "m0001")
    assert made.forms == (*new.forms, *old.forms)


def test_what_cannot_be_corrected_is_told_why() -> None:
    way = MemoryItem("trajectory", "How?", "east", path=("a", "east", "b"), id="m0004")
    items = [
        MemoryItem("fact", f"Who is {name}?", "B", id=f"m000{n}") for n, name in enumerate("ABC", 1)
    ]
    state = State({item.id: Entry(item) for item in (*items, way)})
    state.entries["m0002"].standing = "superseded"

    def fault(*ids: str, question: str = "Who?") -> str:
        rows = [MemoryItem("fact", question, "Z", supersedes=name) for name in ids]
        with pytest.raises(RequestError) as error:
            check_corrections(rows, state, "memory")
        return str(error.value)

    check_corrections([MemoryItem("fact", "Who?", "Z", supersedes="m0001")], state, "memory")
    assert "no such item" in fault("m0099")
    assert "superseded already" in fault("m0002")
    assert "way on a map" in fault("m0004")
    assert "two rows" in fault("m0001", "m0001")
    assert "`m0003` asks exactly that" in fault("m0001", question="Who is C?")
