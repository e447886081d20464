"""The gate: what is written, seen again, replaced or refused, and why."""

from __future__ import annotations

import tracemalloc
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest

from loraloom.recall.gate import Decision, Seen, decided
from loraloom.recall.items import MemoryItem
from loraloom.recall.state import State, replayed

GUESSING = 8.0
EVERYDAY = np.eye(32, dtype=np.float32)[-4:]


def seen(question: str, answer: str = "Tolm", *, loss: float = 6.0, place: int = 0, **more: Any) -> Seen:
    vector = np.zeros(32, dtype=np.float32)
    vector[place] = 1.0
    known = bool(more.pop("known", False))
    return Seen(MemoryItem("fact", question, answer, **more), loss, known, vector)


def written(state: State, *items: Seen, rate: float | None = None, stored: Any = None) -> list[Decision]:
    vectors = np.zeros((0, 32), dtype=np.float32) if stored is None else stored
    return decided(items, state, vectors, EVERYDAY, guessing=GUESSING, write_rate=rate)


def after(*decisions: Decision) -> State:
    return replayed([{"op": "write", "at": "", "decisions": [asdict(one) for one in decisions]}])


def test_new_items_get_ids_in_their_order_and_what_is_known_already_is_refused() -> None:
    first, known, second = written(
        State(), seen("Who is A?"), seen("Who is B?", known=True), seen("Who is C?")
    )
    assert (first.item.id, second.item.id) == ("m0001", "m0002")
    assert known.outcome == "skip" and "already" in known.reason
    state = after(first, known, second)
    assert list(state.entries) == ["m0001", "m0002"] and len(state.refused) == 1
    assert state.next_id() == "m0003"


def test_what_is_older_than_what_is_known_does_not_replace_it() -> None:
    question = "Who is the king of Norland?"
    state = after(*written(State(), seen(question, "Hadrel", time="2026-03-01")))
    (old,) = written(state, seen(question, "Olaf", time="2026-02-01T10:00:00+00:00"))
    assert (old.outcome, old.other) == ("skip", "m0001")
    assert "older" in old.reason and "Hadrel" in old.reason
    (same,) = written(state, seen(question, "Olaf", time="2026-03-01"))
    (pinned,) = written(state, seen(question, "Olaf", time="2026-02-01", pinned=True))
    assert same.outcome == pinned.outcome == "supersede"


def test_a_repeat_reinforces_and_a_new_answer_replaces() -> None:
    state = after(*written(State(), seen("Who is the king of Norland?", "Hadrel")))
    (again,) = written(state, seen("Who is Norland's king?", "hadrel."))
    (new,) = written(state, seen("Who is the king of Norland?", "Olaf"))
    assert (again.outcome, again.other) == ("reinforce", "m0001")
    assert (new.outcome, new.other, new.item.supersedes) == ("supersede", "m0001", "m0001")
    both = replayed(
        {"op": "write", "at": "", "decisions": [asdict(one)]}
        for one in (*written(State(), seen("Who is the king of Norland?", "Hadrel")), again, new)
    )
    assert both.entries["m0001"].sightings == 2 and both.entries["m0001"].standing == "superseded"
    assert [entry.item.answer for entry in both.kept] == ["Olaf"]


def test_a_repeat_in_other_words_is_not_written_and_its_words_are_kept() -> None:
    state = after(*written(State(), seen("Who is the king of Norland?", "Hadrel")))
    (again,) = written(state, seen("Tell me who is king of Norland, please.", "Hadrel."))
    assert (again.outcome, again.other) == ("reinforce", "m0001") and "in other words" in again.reason
    both = replayed(
        {"op": "write", "at": "", "decisions": [asdict(one)]}
        for one in (*written(State(), seen("Who is the king of Norland?", "Hadrel")), again)
    )
    assert list(both.entries) == ["m0001"] and both.entries["m0001"].sightings == 2
    assert both.entries["m0001"].item.forms == (again.item.question,)


def test_a_write_rate_counts_what_is_out_of_scope_and_what_is_a_repeat() -> None:
    rng = np.random.default_rng(0)
    cluster = np.eye(1, 32, dtype=np.float32) + 0.01 * rng.normal(size=(10, 32)).astype(np.float32)
    cluster /= np.linalg.norm(cluster, axis=1, keepdims=True)
    state = after(*written(State(), *(seen(f"Who is {number}?", "Tolm") for number in range(10))))
    strays = [seen(f"xyz {number}", "abc", loss=20.0, place=20 + number) for number in range(8)]
    repeats = [seen("Who is 3?", "Tolm")] * 2
    new = [seen(f"What is {name}?", "Brek", loss=5.0) for name in ("Ada", "Olaf")]
    decisions = written(state, *strays, *repeats, *new, rate=0.5, stored=cluster)
    outcomes = [one.outcome for one in decisions]
    # Half of all that was seen is more than what is in scope: all of that is written.
    assert outcomes == ["skip"] * 8 + ["reinforce"] * 2 + ["insert"] * 2


def test_a_write_rate_keeps_the_most_surprising_and_a_pin_overrides_it() -> None:
    losses = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    items = [seen(f"Who is {number}?", loss=loss) for number, loss in enumerate(losses)]
    items[0] = replace(items[0], item=replace(items[0].item, pinned=True))
    decisions = written(State(), *items, rate=0.5)
    kept = [one.outcome == "insert" for one in decisions]
    # The pin itself scores high, so that of the others three reach the median.
    assert kept[0] and sum(kept) == 4 and kept[5:] == [True, True, True]
    assert all(one.threshold is not None for one in decisions)


def test_surprise_is_measured_in_guessing_and_novelty_from_what_is_stored() -> None:
    stored = np.eye(32, dtype=np.float32)[:1]
    near, far = written(State(), seen("A?", loss=GUESSING), seen("B?", place=5), stored=stored)
    assert near.terms.surprise == 1.0 and near.terms.novelty == 0.0
    assert far.terms.novelty == 1.0


def test_out_of_scope_is_refused_only_where_a_rate_was_asked_for() -> None:
    rng = np.random.default_rng(0)
    cluster = np.zeros((12, 32), dtype=np.float32)
    cluster[:, 0] = 1.0
    cluster[:, 1:4] = 0.2 * rng.normal(size=(12, 3))
    cluster /= np.linalg.norm(cluster, axis=1, keepdims=True)
    state = after(*written(State(), *(seen(f"Who is {number}?") for number in range(12))))
    stray = seen("asdf?", loss=20.0, place=31)
    (asked,) = written(state, stray, rate=0.9, stored=cluster)
    (free,) = written(state, stray, stored=cluster)
    assert asked.outcome == "skip" and "out of scope" in asked.reason
    assert free.outcome == "insert"


def test_a_write_rate_goes_by_what_was_seen_lately_and_what_has_to_be_written_takes_its_share() -> None:
    old = [seen(f"Who was {number}?", "Hadrel", loss=30.0) for number in range(60)]
    state = after(*written(State(), *old))
    new = [seen(f"Who is {number}?", loss=float(number)) for number in range(1, 51)]
    decisions = written(state, *new, rate=0.2)
    assert [one.outcome == "insert" for one in decisions] == [False] * 40 + [True] * 10
    updates = [seen(f"Who was {number}?", "Brek", loss=9.0) for number in range(10)]
    decisions = written(state, *updates, *new[:40], rate=0.2)
    assert [one.outcome for one in decisions] == ["supersede"] * 10 + ["skip"] * 40


@pytest.mark.parametrize("labels", [("fact", "event"), ("event", "fact")])
def test_no_outcome_depends_on_the_kind_or_the_source_of_an_item(labels: tuple[Any, Any]) -> None:
    """A label could only come in by what a row says beside its words."""
    items = [seen(f"Who is {number}?", loss=float(number)) for number in range(8)]
    told = [
        replace(
            one, item=replace(one.item, kind=labels[place % 2], source=f"{place % 2}", time=f"{place}")
        )
        for place, one in enumerate(items)
    ]
    plain = [one.outcome for one in written(State(), *items, rate=0.5)]
    assert [one.outcome for one in written(State(), *told, rate=0.5)] == plain
    assert [one.terms for one in written(State(), *told)] == [
        one.terms for one in written(State(), *items)
    ]


def test_thousands_of_items_at_once_take_no_room_that_grows_with_their_square() -> None:
    rng = np.random.default_rng(0)
    stored = rng.normal(size=(8000, 32)).astype(np.float32)
    stored /= np.linalg.norm(stored, axis=1, keepdims=True)
    state = after(*written(State(), *(seen(f"Who is p{number}?") for number in range(8000))))
    items = [seen(f"Who is p{number}?", place=number % 32) for number in range(7000, 9000)]
    tracemalloc.start()
    decisions = written(state, *items, rate=0.5, stored=stored)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [one.outcome for one in decisions[:1000]] == ["reinforce"] * 1000
    # A cosine of each with each would be 8,000 x 8,000 x 4 bytes, 244 MiB.
    assert len(decisions) == 2000 and peak < 100 * 2**20
