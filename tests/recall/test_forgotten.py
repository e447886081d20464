"""What a memory says of itself after it was made to forget: nothing of the answer."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from loraloom.recall.forgotten import FORGOTTEN, Forgotten
from loraloom.recall.gate import Decision, Outcome, Terms
from loraloom.recall.items import MemoryItem
from loraloom.recall.state import State, replayed

SECRET = "under the blue pot"
ASKED = "Where is the key of Norland?"
TERMS = Terms(None, None, 0.5, 0.5, 0.0, 0.0, 0.5)
GONE = {
    "op": "forget",
    "committed": True,
    "rebuilt": False,
    "generation": 0,
    "losses": {},
    "proof": None,
}


def decided(
    outcome: Outcome, name: str, answer: str, reason: str = "new", other: str | None = None, **more: Any
) -> dict[str, Any]:
    item = MemoryItem("fact", more.pop("question", ASKED), answer, id=name, supersedes=other, **more)
    return asdict(Decision(outcome, item, TERMS, reason, other))


def state_of(*decisions: dict[str, Any], forgotten: str) -> State:
    writes = [{"op": "write", "at": "", "decisions": [one]} for one in decisions]
    return replayed([*writes, {**GONE, "id": forgotten}])


FIRST = decided("insert", "m0001", SECRET)
OTHER = decided("insert", "m0002", "Tolm", question="What is the capital of Norland?")
OLDER = decided(
    "skip",
    "",
    "in the shed",
    f"older than m0001, which says `{SECRET}`: 2026-01-01, 2026-02-02",
    "m0001",
)
CORRECTED = decided(
    "supersede", "m0002", "in the shed", f"in place of m0001, which said `{SECRET}`", "m0001"
)
AGAIN = decided(
    "reinforce", "", SECRET, "the same as m0001, in other words", "m0001", question="Which key?"
)
REFUSED = decided("skip", "", SECRET.upper() + ".", "score 0.10, 0.50 needed", question=ASKED.lower())
EVENT = decided("insert", "m0001", SECRET, slots={"where": SECRET}, forms=("Norland's key?",))


@pytest.mark.parametrize("shown", [FIRST, OLDER, AGAIN, REFUSED, EVENT])
def test_no_decision_shows_an_answer_that_was_forgotten(shown: dict[str, Any]) -> None:
    hidden = Forgotten(state_of(FIRST, forgotten="m0001"))
    told = hidden.decision(shown)
    assert SECRET not in str(told).casefold()
    assert told["item"]["answer"] == FORGOTTEN and told["item"]["question"] == shown["item"]["question"]


def test_what_took_the_place_of_a_forgotten_item_is_shown_without_its_words() -> None:
    state = state_of(FIRST, CORRECTED, forgotten="m0001")
    told = Forgotten(state).decision(CORRECTED)
    assert (told["item"]["answer"], told["reason"]) == ("in the shed", "in place of m0001")
    assert [Forgotten(state).answer(one.item) for one in state.entries.values()] == [
        FORGOTTEN,
        "in the shed",
    ]


def test_an_older_item_with_the_same_answer_is_hidden_with_it_and_others_are_not() -> None:
    back = decided("supersede", "m0003", SECRET, "in place of m0002, which said `in the shed`", "m0002")
    state = state_of(FIRST, CORRECTED, back, forgotten="m0003")
    shown = [Forgotten(state).answer(one.item) for one in state.entries.values()]
    assert shown == [FORGOTTEN, "in the shed", FORGOTTEN]
    state = state_of(FIRST, OTHER, forgotten="m0001")
    assert Forgotten(state).decision(OTHER) == OTHER


def test_what_is_written_again_after_it_was_forgotten_is_shown() -> None:
    state = state_of(FIRST, OTHER, forgotten="m0001")
    again = decided("insert", "m0003", SECRET)
    writes = [{"op": "write", "at": "", "decisions": [one]} for one in (FIRST, OTHER)]
    state = replayed([*writes, {**GONE, "id": "m0001"}, {"op": "write", "at": "", "decisions": [again]}])
    shown = [Forgotten(state).answer(one.item) for one in state.entries.values()]
    assert shown == [FORGOTTEN, "Tolm", SECRET]
