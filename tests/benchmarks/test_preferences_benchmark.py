"""The preference benchmark makes the pairs that it says, and expects findings that there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from scripts import load

from loraloom.config.keys import keys
from loraloom.diagnose.order import ORDER

pairs: Any = load("preferences", "pairs", called="pairs")
runs: Any = load("preferences", "runs", called="runs")
planted: Any = load("preferences", "planted")


def test_pairs_are_of_right_and_wrong_answers(shared: Path) -> None:
    intents = pairs.intents(shared, "train", 40, 0)
    assert all(row["chosen"] != row["rejected"] for row in intents)
    known = {
        row["text"].strip(): row["label_text"]
        for row in pairs.rows_of(shared / "data" / "snips" / "train.jsonl")
    }
    for row in intents:
        text = row["prompt"].removeprefix("What does this ask for: ")
        assert row["chosen"] == pairs.spoken(known[text])
    assert pairs.intents(shared, "train", 40, 0) == intents != pairs.intents(shared, "train", 40, 1)
    solutions = pairs.solutions(shared, 40, 0)
    sizes = [(len(row["chosen"]), len(row["rejected"])) for row in solutions]
    assert all(abs(own - other) < 40 for own, other in sizes), "length does not tell the sides apart"


def test_planted_data_have_their_fault(shared: Path, tmp_path: Path) -> None:
    files = planted.tables(shared, tmp_path)
    right, wrong = (
        pairs.rows_of(Path(files[name]["data.train"]))
        for name in ("intents", "intents swapped in training")
    )
    assert pairs.swapped(wrong) == right
    longer = [
        len(row["chosen"]) > len(row["rejected"])
        for row in pairs.rows_of(Path(files["padded"]["data.train"]))
    ]
    assert 0.7 < sum(longer) / len(longer) < 0.9
    mixed = planted.at_random(right, 0)
    assert 0.4 < sum(one != other for one, other in zip(mixed, right, strict=True)) / len(right) < 0.6


@pytest.mark.parametrize("case", planted.CASES, ids=lambda case: case.name)
def test_a_case_expects_findings_and_sets_keys_that_there_are(case: Any) -> None:
    assert set(case.expected) <= set(ORDER)
    assert {*case.values, *case.times} <= set(keys())


def test_ten_faults_are_planted_and_there_are_healthy_runs() -> None:
    assert sum(bool(case.expected) for case in planted.CASES) >= 10
    assert sum(not case.expected for case in planted.CASES) >= 5
