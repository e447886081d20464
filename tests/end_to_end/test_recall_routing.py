"""`recall ask` with its router: what is nowhere in the memory is the base's, to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest
from doorway import call
from small_memory import FACTS, asked

pytestmark = pytest.mark.usefixtures("short_anchors")
STRANGERS = ("What is the capital of Zorvia?", "Where is a mat?", "Say the star.")


def test_what_is_remembered_goes_to_the_memory_and_anything_else_to_the_base(
    learnt_memory: Path,
) -> None:
    ways = {}
    for flags in ((), ("--no-route",), ("--off",)):
        told = call("recall", "ask", learnt_memory, *FACTS, *STRANGERS, *flags, "--json", "--quiet")
        assert told.code == 0, told.err
        ways[flags] = told.json()
    routed, free, off = ways.values()
    assert [one["memory"] for one in routed[: len(FACTS)]] == list(FACTS.values())
    assert all(one["route"]["remembered"] for one in routed[: len(FACTS)])
    assert [one["memory"] for one in routed[len(FACTS) :]] == [one["base"] for one in off[len(FACTS) :]]
    assert routed[len(FACTS)]["route"]["stranger"] == "zorvia"
    # Without a router the adapters act on everything, which is what the router keeps away.
    assert any(one["memory"] != one["base"] for one in free[len(FACTS) :])
    assert all(one["route"] is None for one in (*free, *off))


def test_the_screen_says_why_the_memory_was_not_asked(learnt_memory: Path) -> None:
    told = call("recall", "ask", learnt_memory, *STRANGERS[:2], "--quiet")
    assert "`zorvia` is nowhere in it, so the base answers alone" in told.out
    assert "the nearest has" in told.out


def test_a_forgotten_item_is_not_routed_and_is_gone_from_the_adapters_too(memory: Path) -> None:
    target = "What is the flag of Norland?"
    items = call("recall", "report", memory, "--json", "--quiet").json()["items"]
    name = next(one["id"] for one in items if one["question"] == target)
    assert call("recall", "forget", memory, name, "--quiet").code == 0
    assert asked(memory, target)[0]["memory"] != FACTS[target]
    kept = call("recall", "ask", memory, *FACTS, "--json", "--quiet").json()
    assert [one["memory"] for one in kept if one["question"] != target] == [
        said for question, said in FACTS.items() if question != target
    ]
