"""Facts as a graph at the command line: shown, built upon by a sleep, forgotten with what follows."""

from __future__ import annotations

from pathlib import Path

import pytest
from doorway import call
from small_memory import asked

from loraloom.pipeline.recall import bench as benches
from loraloom.pipeline.recall.bench import MemoryBench
from loraloom.recall.memory import opened

pytestmark = pytest.mark.usefixtures("short_anchors")
BACK = "Whose flag is a green star?"
DETOUR = "What is the flag of the one whose capital is Tolm?"


def edges(folder: Path) -> dict[str, str]:
    """What has become of each fact of `report --graph`."""
    told = call("recall", "report", folder, "--graph", "--json", "--quiet")
    assert told.code == 0, told.err
    return {f"{one['subject']} {one['relation']}": one["status"] for one in told.json()["graph"]}


def test_a_sleep_builds_upon_facts_and_forgetting_one_takes_away_what_follows(memory: Path) -> None:
    assert edges(memory)["Norland flag"] == "new"
    assert "Norland" not in (asked(memory, BACK)[0]["memory"], asked(memory, DETOUR)[0]["memory"])
    slept = call("recall", "sleep", memory, "--json", "--quiet").json()
    assert slept["committed"] and slept["after"]["derived"] > slept["before"]["derived"]
    assert [one["memory"] for one in asked(memory, BACK, DETOUR)] == ["Norland", "a green star"]
    assert edges(memory)["Norland flag"] == "settled"
    assert not call("recall", "sleep", memory, "--json", "--quiet").json()["done"]
    gone = call("recall", "forget", memory, "m0002", "--json", "--quiet")
    assert gone.code == 0, gone.err
    proof = gone.json()["proof"]
    # Of all wordings of the fact and of what follows from it.
    assert proof["target_before"] > 0.4 and proof["target_after"] <= proof["chance"] + 0.05
    assert asked(memory, DETOUR)[0]["memory"] != "a green star"
    assert edges(memory)["Norland flag"] == "forgotten"


def tell(folder: Path, question: str, answer: str) -> None:
    assert call("recall", "write", folder, "--question", question, "--answer", answer, "-q").code == 0


def test_a_graph_shows_what_was_replaced_and_what_is_not_built_upon(memory: Path) -> None:
    for number, land in enumerate(("Westland", "Brekland", "Grey")):
        tell(memory, f"What is the capital of {land}?", f"Olaf {number}")
        tell(memory, f"What is the flag of {land}?", f"a star {number}")
    tell(memory, "What is the capital of Olaf Grey?", "the mat")
    told = call("recall", "report", memory, "--graph", "--quiet")
    assert told.code == 0 and "not built upon until it is seen again" in told.out
    tell(memory, "Who is the king of Sudland?", "Brek")
    told = call("recall", "report", memory, "--graph", "--quiet")
    assert all(len(line) <= 80 for line in told.out.splitlines())
    shown = {line.split()[0]: line for line in told.out.splitlines() if line.startswith("m")}
    assert "superseded" in shown["m0003"] and "Sudland --king--> Olaf Grey" in shown["m0003"]
    assert "new" in shown["m0001"] and "Norland --capital--> Tolm" in shown["m0001"]


def test_a_memory_that_comes_to_hold_another_kind_keeps_the_ranks_that_it_has(
    memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(memory) as held:
        facts = MemoryBench(held, [], lambda sentence: None)
        learnt = facts.parts["fast"].rank
        assert facts.plan.config.preset == "memory-relational" and facts.rank == learnt
        monkeypatch.setattr(benches, "preset_of", lambda kinds: "under-8gb")
        other = MemoryBench(held, [], lambda sentence: None)
        assert other.plan.values()["adapter.r"] < learnt == other.rank
