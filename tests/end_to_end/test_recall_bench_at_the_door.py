"""`recall bench`: a base is tried on invented sessions, and nothing is left behind unless it is kept."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import small_memory
from doorway import Door, World, call

from loraloom.pipeline.recall import trial
from loraloom.recall.workload import workload

FEW = ("--items", 4, "--sessions", 2, "--seed", 7)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small chat model that has the words of what is invented."""
    made = workload(7, sessions=2, items=4)
    said = {one.question: one.answer for one in made.questions}
    return str(small_memory.save_word_chat(tmp_path_factory.mktemp("base") / "words", said))


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch, short_anchors: None) -> None:
    for name in ("in_sessions", "sleep"):
        shortened = partial(getattr(trial, name), recipe=small_memory.FEW_STEPS)
        monkeypatch.setattr(trial, name, shortened)


@pytest.mark.usefixtures("few_steps")
def test_a_base_is_tried_and_what_it_made_can_be_kept(base: str, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    tried = call("recall", "bench", base, *FEW, "--keep", folder, "--json", "--quiet")
    assert tried.code == 0, tried.err
    found: dict[str, Any] = tried.json()
    assert found["items"] == 8 and found["sessions"] == 2
    assert found["digest"] == workload(7, sessions=2, items=4).digest
    bare, learnt, slept = found["stages"]
    assert [one["name"] for one in found["stages"]] == ["base", "learnt", "slept"]
    assert bare["verbatim"] == bare["near"] == bare["far"] == 0 and bare["known"] == 1
    assert learnt["verbatim"] > 0.3 and learnt["perplexity"] != bare["perplexity"]
    assert found["sleep"]["replayed_rows"] > 8 and slept["verbatim"] >= learnt["verbatim"] - 0.2
    # What was kept is a memory like any other.
    items = call("recall", "report", folder, "--json", "--quiet").json()["items"]
    assert len(items) == 8
    again = call("recall", "bench", base, *FEW, "--keep", folder)
    assert "is there already" in small_memory.refusal(again)


@pytest.mark.usefixtures("few_steps")
def test_its_table_fits_eighty_columns_and_nothing_is_left_behind(
    base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    tried = call("recall", "bench", base, "--items", 4, "--sessions", 1, "--quiet")
    assert tried.code == 0, tried.err
    head, base_row, learnt, slept = tried.out.splitlines()[3:7]
    assert [row.split()[0] for row in (base_row, learnt, slept)] == ["base", "learnt", "slept"]
    assert all(len(line) <= 80 for line in (head, base_row, learnt, slept))
    assert not list(tmp_path.iterdir())


def test_what_cannot_answer_is_not_started(world: World, loraloom: Door) -> None:
    told = small_memory.refusal(loraloom("recall", "bench", world.bert))
    assert "does not answer questions" in told and "next:" in told
    many = loraloom("recall", "bench", world.llama, "--items", 100, "--sessions", 11)
    assert "at most 1,000" in small_memory.refusal(many)
