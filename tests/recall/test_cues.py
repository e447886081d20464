"""Events asked with less than was said: only where one event fits."""

from __future__ import annotations

from dataclasses import replace

from loraloom.recall.cues import cue_forms, cues_of
from loraloom.recall.items import MemoryItem, items_of
from loraloom.recall.state import Entry
from loraloom.recall.workload import workload

FULL = {"what": "found a key", "where": "in the barn", "when": "on Monday"}


def entries(*events: dict[str, str]) -> list[Entry]:
    rows = [(f"row {number}", {"kind": "event", **event}) for number, event in enumerate(events)]
    items = items_of(rows, "2026-01-01T00:00:00+00:00")
    return [Entry(replace(item, id=f"m{number}")) for number, item in enumerate(items)]


def shown(found: list[Entry], name: str) -> set[tuple[str, ...]]:
    return {cue.shown for cue in cues_of(found) if cue.item.id == name}


def test_a_lone_event_is_asked_with_two_slots_and_with_one() -> None:
    (lone,) = entries({"who": "Ada", **FULL, "ask": "who"})
    assert shown([lone], "m0") == {
        ("what", "where"),
        ("what", "when"),
        ("where", "when"),
        ("what",),
        ("where",),
        ("when",),
    }
    asked = {cue.shown: cue.asked("Who was it that {what} {where} {when}?") for cue in cues_of([lone])}
    assert asked["what",] == "Who was it that found a key?"
    assert asked["where", "when"] == "Who was it that did something in the barn on Monday?"


def test_a_near_collision_is_asked_only_with_the_slot_that_differs() -> None:
    found = entries(
        {"who": "Ada", **FULL, "ask": "who"},
        {"who": "Olaf", **FULL, "when": "on Friday", "ask": "who"},
    )
    assert shown(found, "m0") == {("what", "when"), ("where", "when"), ("when",)}
    assert all("on Friday" in cue.asked("{when}") for cue in cues_of(found) if cue.item.id == "m1")


def test_two_questions_about_one_event_leave_its_parts_its_own() -> None:
    event = {"who": "Ada", **FULL}
    both = entries({**event, "ask": "who"}, {**event, "ask": "where"})
    assert shown(both, "m0") == shown(both[:1], "m0")


def test_every_cue_fits_its_event_alone_and_no_form_is_trained_and_held_out() -> None:
    kept = [Entry(replace(item, id=f"m{n}")) for n, item in enumerate(workload(0, sessions=4).items)]
    events = [entry.item.slots for entry in kept if entry.item.kind == "event"]
    cues = cues_of(kept)
    assert {len(cue.shown) for cue in cues} == {1, 2}
    for cue in cues:
        fits = [
            slots for slots in events if all(slots[name] == cue.item.slots[name] for name in cue.shown)
        ]
        assert fits == [cue.item.slots] and cue.asks not in cue.shown
    trained, held_out = cue_forms(kept), cue_forms(kept, held_out=True)
    assert {form.answer for form in trained} <= {entry.item.answer for entry in kept}
    assert not {form.question for form in trained} & {form.question for form in held_out}
    asked = [question for entry in kept for question in entry.item.asked]
    assert not {form.question for form in (*trained, *held_out)} & set(asked)
    assert trained == cue_forms(kept)


def test_what_was_written_as_a_question_or_is_no_event_has_no_cues() -> None:
    items = [
        MemoryItem("event", "Who found a key?", "Ada", id="m0"),
        *workload(0, sessions=1).items[-2:],
    ]
    assert cues_of([Entry(item) for item in items]) == []
