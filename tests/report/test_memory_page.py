"""The page of a memory: whole, alone, deaf to scripts in its items."""

from __future__ import annotations

import json
from typing import Any

import pytest
from test_page import EVIL, Page

from loraloom.report.memory_page import ERASED, SUPPRESSED, render_memory

AT = "2026-01-02T03:04:05+00:00"
GONE = "(forgotten)"


def item(name: str, answer: str, **more: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "id": name,
        "kind": "fact",
        "question": f"Where is {name}?",
        "answer": answer,
        "standing": "kept",
        "wake": 1,
        "consolidated": True,
        "sightings": 1,
        "source": "diary",
        "time": AT,
        "supersedes": None,
        "answered": True,
        "other_wordings": 0.8,
    }
    return values | more


def result(name: str, **more: float) -> dict[str, Any]:
    values = {"verbatim": 1.0, "held_out": 0.9, "not_known": 0.8, "moved": 0.1, "perplexity": 11.0}
    return {"name": name, **values, "known": 0.95, "forms": 10, **more}


def decision(outcome: str, of: dict[str, Any], reason: str, **more: Any) -> dict[str, Any]:
    terms = {"scope": None, "scope_needed": None, "surprise": 0.66, "novelty": 0.5, "score": 0.61}
    values = {"outcome": outcome, "item": of, "reason": reason, "other": None, "threshold": None}
    return {**values, "terms": terms, **more}


BASE = result("base", verbatim=0.0, held_out=0.0, not_known=0.0, perplexity=10.0, known=1.0)
LEARNT = {
    "op": "learn",
    "at": AT,
    "learnt": ["m0001", "m0002"],
    "rebuilt": False,
    "steps": 60,
    "planned_steps": 80,
    "before": BASE,
    "after": result("seed 2"),
    "candidates": [result("seed 1", held_out=0.7), result("seed 2")],
    "unsure": ["m0002"],
    "generation": 1,
    "bytes": {"fast": 2**21},
}
ROLLED_BACK = {
    "op": "sleep",
    "at": AT,
    "committed": False,
    "reason": "of other wordings 0.500 would be answered, 0.900 are now",
    "replayed": ["m0001"],
    "steps": 60,
    "before": result("before"),
    "after": result("scale 1, 60 steps"),
    "candidates": [result("scale 1, 60 steps")],
}
PROOF = {
    "target_before": 1.0,
    "target_after": 0.0,
    "chance": 0.0,
    "loss_before": 0.01,
    "loss_after": 6.5,
    "loss_chance": 4.2,
    "others_before": result("others"),
    "others_after": result("others", perplexity=11.2),
    "neighbours_before": 1.0,
    "neighbours_after": 0.8,
}
FORGOT = {
    "op": "forget",
    "at": AT,
    "id": "m0002",
    "rebuilt": False,
    "committed": True,
    "proof": PROOF,
    "generation": 2,
    "bytes": {"fast": 2**21},
}


def document(**more: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "memory": "/tmp/my notes",
        "base": {"name_or_path": "tiny/model", "fingerprint": "f00d"},
        "generation": 2,
        "wakes": 1,
        "sleeps": 0,
        "items": [
            item("m0001", "Tolm"),
            item("m0002", GONE, standing="forgotten", answered=None, other_wordings=None),
            item("m0003", "in the shed", wake=None, answered=None, other_wordings=None),
        ],
        "refused": [],
        "by_wake": [{"wake": 1, "lag": 0, "items": 1, "verbatim": 1.0, "other_wordings": 0.8}],
        "before": BASE,
        "now": result("memory"),
        "growth": {"fast": {"rank": 16, "bytes": 2**21}},
        "trainings": [LEARNT, ROLLED_BACK, FORGOT],
        "notes": [],
    }
    return values | more


def writes() -> list[dict[str, Any]]:
    first = [
        decision("insert", item("m0001", "Tolm"), "new"),
        decision("insert", item("m0002", GONE), "new"),
    ]
    second = [
        decision("supersede", item("m0003", "in the shed"), "in place of m0002", other="m0002"),
        decision("skip", item("", "four"), "the model answers so already", threshold=0.7),
    ]
    return [
        {"op": "write", "at": AT, "decisions": first},
        {"op": "write", "at": AT, "decisions": second},
    ]


def fact(name: str, status: str, subject: str, relation: str, object: str) -> dict[str, Any]:
    track = {"fit": 0.25, "score": 0.31}
    ends = {"subject": subject, "relation": relation, "object": object}
    return {"item": name, "status": status, "track": track, **ends}


def test_facts_are_listed_by_what_they_are_about_and_maps_with_their_scores() -> None:
    facts = [
        fact("m0001", "settled", "Norland", "capital", "Tolm"),
        fact("m0002", "forgotten", "Norland", "key", GONE),
        fact("m0003", "provisional", "Tolm", "capital", "Olaf"),
    ]
    seen = {"pairs": 12, "valid": 1.0, "reached": 0.75, "ratio": 1.25}
    unseen = {"pairs": 3, "valid": 0.0, "reached": 0.0, "ratio": None}
    macros = [{"route": "a1, east a2, north b2", "trajectories": 4}]
    harbour = {"map": "Harbour", "places": 9, "steps": 20, "trajectories": 6}
    maps = [{**harbour, "seen": seen, "unseen": unseen, "macros": macros}]
    html = render_memory(document(maps=maps), writes(), facts)
    text = text_of(Page(html))
    assert "key →" not in text
    for words in (
        "capital → Tolm",
        "capital → Olaf provisional: fit 0.25, score 0.31",
        "Harbour 9 places, 20 steps, 6 trajectories",
        "in 4a1, east a2, north b2",
    ):
        assert words in text, words


def text_of(page: Page) -> str:
    return " ".join(page.text.split())


def test_everything_that_a_memory_can_say_of_itself_is_on_its_page() -> None:
    page = Page(render_memory(document(), writes()))
    text = text_of(page)
    order = [
        "It answers 1 of the 1 things that it has learnt.",
        "1 written and not learnt yet.",
        "What is known",
        "By session and lag",
        "What it cost the base",
        "Written or refused",
        "Forgotten",
        "Trainings",
        "Go on",
    ]
    places = [text.index(words) for words in order]
    assert places == sorted(places)
    for words in (
        "+10.0%",
        "the model answers so already",
        "Not yet answered as written: m0002.",
        "Rolled back, and nothing was changed: of other wordings 0.500",
        "Loss of its answer: 0.01 nats a token before, 6.50 after, 4.20 by the bare base",
        "loraloom recall sleep '/tmp/my notes'",
    ):
        assert words in text, words
    (data,) = [script for attributes, script in page.scripts if attributes.get("type")]
    assert [figure["id"] for figure in json.loads(data)] == [
        "by_wake",
        "after_trainings",
        "cost",
        "growth",
    ]


def test_what_follows_has_a_column_where_something_does() -> None:
    sleep = {**ROLLED_BACK, "candidates": [result("scale 1, 60 steps", derived=0.75, derived_forms=8)]}
    pages = [Page(render_memory(document(trainings=[one]), [])) for one in (ROLLED_BACK, sleep)]
    without, with_it = (text_of(page) for page in pages)
    assert "what follows" not in without
    now = {**result("memory"), "by_kind": {"inverse": 0.5, "two_hop": 1.0}}
    told = text_of(Page(render_memory(document(now=now), [])))
    assert "asked backwards 50%, in two hops 100%." in told
    assert "other wordingswhat followsunseen: not known" in with_it and "90%75%80%" in with_it


@pytest.mark.parametrize("rebuilt", [False, True])
def test_what_is_only_suppressed_is_said_to_be_so_until_the_adapters_are_trained_anew(
    rebuilt: bool,
) -> None:
    anew = {**LEARNT, "rebuilt": True, "generation": 3, "bytes": {"slow": 2**21}}
    trainings = [LEARNT, FORGOT, *([anew] if rebuilt else [])]
    text = text_of(Page(render_memory(document(trainings=trainings), writes())))
    assert (SUPPRESSED in text, ERASED in text) == (not rebuilt, rebuilt)
    assert ("loraloom recall forget '/tmp/my notes' m0002 --rebuild" in text) is not rebuilt


def test_a_memory_that_learnt_nothing_has_a_page_too() -> None:
    waiting = item("m0001", "Tolm", wake=None, answered=None, other_wordings=None)
    empty = {
        "items": [waiting],
        "by_wake": [],
        "before": None,
        "now": None,
        "growth": {},
        "trainings": [],
    }
    page = Page(render_memory(document(**empty), writes()[:1]))
    text = text_of(page)
    assert "Nothing is learnt yet." in text and "loraloom recall learn" in text
    assert "What it cost" not in text and len(page.scripts) == 1
    assert "Nothing was written yet." in text_of(
        Page(render_memory(document(**empty | {"items": []}), []))
    )


def test_what_comes_from_outside_is_only_text() -> None:
    clean = Page(render_memory(document(), writes()))
    evil = item("m0001", EVIL, question=EVIL, source=EVIL, kind=EVIL)
    trainings = [{**LEARNT, "candidates": [result(EVIL)]}, {**ROLLED_BACK, "reason": EVIL}, FORGOT]
    told = document(items=[evil, *document()["items"][1:]], trainings=trainings, notes=[EVIL])
    told["base"] = {"name_or_path": EVIL, "fingerprint": ""}
    page = Page(render_memory(told, [{"at": AT, "decisions": [decision("insert", evil, EVIL)]}]))
    assert len(page.scripts) == len(clean.scripts)
    assert "img" not in {tag for tag, _ in page.tags} and EVIL in page.text
    for tag, attributes in page.tags:
        assert not {"src", "href", "srcset", "action"} & set(attributes), tag
        assert not any(name.startswith("on") for name in attributes), tag
