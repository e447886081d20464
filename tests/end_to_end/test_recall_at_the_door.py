"""A memory at the command line: written, learnt, settled, asked and forgotten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from doorway import call
from small_memory import FACTS, WHO, asked, refusal

from loraloom.pipeline.recall.settle import Settled

pytestmark = pytest.mark.usefixtures("few_steps")


def test_what_was_learnt_is_answered_by_memory_and_not_by_the_base(learnt_memory: Path) -> None:
    answers = asked(learnt_memory, *FACTS)
    assert [one["memory"] for one in answers] == list(FACTS.values())
    assert not {one["base"] for one in answers} & set(FACTS.values())
    assert all(one["found"]["answer"] in FACTS.values() for one in answers)
    off = call("recall", "ask", learnt_memory, next(iter(FACTS)), "--off", "--json", "--quiet").json()
    assert off[0]["memory"] is None and off[0]["base"] == answers[0]["base"]


def test_a_sleep_settles_all_in_the_slow_adapter(memory: Path) -> None:
    slept = call("recall", "sleep", memory, "--json", "--quiet")
    assert slept.code == 0, slept.err
    record = slept.json()
    assert record["committed"], record
    assert record["replayed_rows"] > 4
    generation = memory / "generations" / f"{record['generation']:04d}"
    assert (generation / "slow").is_dir() and not (generation / "fast").exists()
    assert [one["memory"] for one in asked(memory, *FACTS)] == list(FACTS.values())
    # What is settled can be forgotten too, and something new learnt over it.
    forget_and_ask(memory, "Where is the key of Westland?")
    call("recall", "write", memory, *WHO, "--quiet")
    assert call("recall", "learn", memory, "--seeds", 1, "--quiet").code == 0
    generation = max((memory / "generations").iterdir())
    assert sorted(path.name for path in generation.iterdir()) == ["fast", "slow"]
    assert asked(memory, "Who?")[0]["memory"] == "Olaf"


def forget_and_ask(memory: Path, target: str) -> dict[str, Any]:
    """Forget an item and hear that it is said no more and all the others are; the proof."""
    name = next(one["id"] for one in listed(memory) if one["question"] == target)
    gone = call("recall", "forget", memory, name, "--json", "--quiet")
    assert gone.code == 0, gone.err
    answers = {one["question"]: one["memory"] for one in asked(memory, *FACTS)}
    assert answers[target] != FACTS[target]
    assert all(answers[question] == said for question, said in FACTS.items() if question != target)
    return gone.json()


def test_a_sleep_that_makes_it_worse_is_rolled_back_with_its_reason(
    memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from loraloom.pipeline.recall import sleeping

    before = asked(memory, *FACTS)
    settled = sleeping.settled

    def worse(*args: Any) -> Settled:
        made = settled(*args)
        result = replace(made.after.result, verbatim=0.25)
        return replace(made, after=replace(made.after, result=result))

    monkeypatch.setattr(sleeping, "settled", worse)
    slept = call("recall", "sleep", memory, "--json", "--quiet").json()
    assert not slept["committed"] and "as trained 0.250" in slept["reason"]
    assert asked(memory, *FACTS) == before


def test_a_correction_replaces_what_was_said_and_a_repeat_is_seen_again(memory: Path) -> None:
    question = "What is the capital of Norland?"
    fixed = call("recall", "write", memory, "--question", question, "--answer", "Brek", "--json", "-q")
    repeat = call("recall", "write", memory, "--question", question, "--answer", "brek.", "--json", "-q")
    assert [one.json()["decisions"][0]["outcome"] for one in (fixed, repeat)] == [
        "supersede",
        "reinforce",
    ]
    assert call("recall", "learn", memory, "--seeds", 1, "--quiet").code == 0
    assert asked(memory, question)[0]["memory"] == "Brek"
    found = call("recall", "report", memory, "--json", "--quiet").json()
    standing = {one["answer"]: one["standing"] for one in found["items"]}
    assert standing["Tolm"] == "superseded" and standing["Brek"] == "kept"
    assert [one["wake"] for one in found["by_wake"]] == [1, 2]
    (memory / "report.html").unlink()
    told = call("recall", "report", memory, "--quiet")
    assert told.out.splitlines()[-1] == f"page: {memory.resolve() / 'report.html'}"
    assert "Who is the king of Sudland?" in (memory / "report.html").read_text()


def test_what_is_forgotten_is_said_no_more_and_the_rest_is(memory: Path) -> None:
    gone = forget_and_ask(memory, "What is the flag of Norland?")
    proof = gone["proof"]
    assert proof["target_before"] > 0.5 and proof["target_after"] <= proof["chance"] + 0.05
    assert "forgotten already" in refusal(call("recall", "forget", memory, gone["id"]))


def test_a_rebuild_leaves_the_item_out_of_what_is_trained(memory: Path) -> None:
    target = "Who is the king of Sudland?"
    name = next(one["id"] for one in listed(memory) if one["question"] == target)
    gone = call("recall", "forget", memory, name, "--rebuild", "--quiet")
    assert gone.code == 0, gone.err
    assert "suppressed" not in gone.out and "never saw it" in gone.out
    answers = {one["question"]: one["memory"] for one in asked(memory, *FACTS)}
    assert answers[target] != FACTS[target]
    assert sum(answers[question] == said for question, said in FACTS.items()) == 3


def listed(folder: Path) -> list[dict[str, Any]]:
    return call("recall", "report", folder, "--json", "--quiet").json()["items"]
