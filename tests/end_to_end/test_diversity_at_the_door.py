"""What `check` says of the rows, what a run keeps of it, and rows that are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from doorway import Door, Run, World, write_rows


def test_check_tells_every_figure(world: World, loraloom: Door, tmp_path: Path) -> None:
    words = ["check", "--quick", "--model", world.bert, "--data", world.labels, "--test", "0.2"]
    found = loraloom(*words, "--json").json()["diversity"]
    figures = found["figures"]
    train = figures["splits"]["train"]
    assert (
        train["rows"] + sum(figures["splits"][s]["rows"] for s in figures["splits"] if s != "train")
        == 240
    )
    assert train["labels"].keys() == {"animal", "food"}
    assert sum(train["labels"].values()) == train["rows"] == sum(train["sources"].values())
    assert train["scripts"] == {"Latin": 1.0} and train["lengths"]["100"] >= train["lengths"]["50"] > 2
    assert figures["lacking"]["test"]["texts"] == figures["splits"]["test"]["rows"]
    shown = loraloom(*words).out
    assert all(
        f"\n{line['name']} " in f"\n{shown}" and line["found"] in shown for line in found["lines"]
    )


def test_a_fault_of_the_rows_is_told_with_what_to_do(
    world: World, loraloom: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    rows = [json.loads(line) for line in Path(world.labels).read_text().splitlines()]
    twice = write_rows(tmp_path / "twice.jsonl", rows + rows[:100])
    out = loraloom("check", "--quick", "--model", world.bert, "--data", twice).out
    assert "training rows repeat another" in out and "do: --set data.deduplicate=" in out
    assert max(len(line) for line in out.splitlines() if str(tmp_path) not in line) <= 80


def test_a_run_keeps_what_was_said_and_its_page_shows_it(tuned: Run) -> None:
    kept = json.loads((tuned.folder / "diversity.json").read_text())
    page = (tuned.folder / "report.html").read_text()
    assert kept["figures"]["splits"]["train"]["rows"] > 0
    assert 'id="data"' in page and all(line["name"] in page for line in kept["lines"])


@pytest.mark.parametrize("verb", ["check", "plan", "train", "tune"])
def test_rows_that_only_repeat_each_other_are_refused(
    verb: str, world: World, loraloom: Door, tmp_path: Path
) -> None:
    one = [{"text": "the cat sleeps", "label": "animal"}, {"text": "The  cat sleeps", "label": "food"}]
    same = write_rows(tmp_path / "same.jsonl", one * 20)
    words = ["--model", world.bert, "--output-dir", tmp_path / "runs"]
    answer = loraloom(verb, *words, "--data", same, "--validation", same)
    assert answer.code == 2 and "all 40 training rows say the same\n" in answer.err
    rows = [json.loads(line) for line in Path(world.labels).read_text().splitlines()]
    held = write_rows(tmp_path / "held.jsonl", rows[:30])
    answer = loraloom(verb, *words, "--data", world.labels, "--test", held)
    assert answer.code == 2
    assert "all 30 test rows say what rows of an earlier split say\n" in answer.err
    assert not (tmp_path / "runs").exists()
