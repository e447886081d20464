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


def test_planted_data_have_their_fault(shared: Path) -> None:
    right, held_out, _ = planted.INTENTS.rows(shared)
    wrong, same = planted.swapped_in_training((right, held_out))
    assert pairs.swapped(wrong) == right and same == held_out
    learnt, _ = planted.padded((right, held_out))
    longer = [len(row["chosen"]) > len(row["rejected"]) for row in learnt]
    assert 0.7 < sum(longer) / len(longer) < 0.9
    mixed, _ = planted.at_random((right, held_out))
    assert 0.4 < sum(one != other for one, other in zip(mixed, right, strict=True)) / len(right) < 0.6


@pytest.mark.parametrize("name", ["intents", "solutions", "stories"])
def test_rows_that_are_held_out_are_not_learnt(name: str, shared: Path) -> None:
    splits = planted.Source(name, 60, 40, seed=3).rows(shared, beyond=20)
    assert [len(rows) for rows in splits] == [60, 40, 20]
    learnt, held_out, beyond = ({row["prompt"] for row in rows} for rows in splits)
    assert not learnt & (held_out | beyond)
    assert len(held_out & beyond) <= 1, "a prompt may be asked twice in the data themselves"


SETS = {
    "first": planted.FIRST,
    "second": planted.SECOND,
    "third": planted.drawn(0),
    "fourth": planted.drawn(1),
}


@pytest.mark.parametrize("name", SETS)
def test_a_case_expects_findings_and_sets_keys_that_there_are(name: str) -> None:
    for case in SETS[name]:
        assert set(case.expected) <= set(ORDER)
        assert {*case.values, *case.times} <= set(keys())
    assert len(SETS[name]) == len({case.name for case in SETS[name]})


@pytest.mark.parametrize("name", SETS)
def test_ten_faults_are_planted_and_there_are_healthy_runs(name: str) -> None:
    assert sum(bool(case.expected) for case in SETS[name]) == 10
    assert sum(not case.expected for case in SETS[name]) == 5


def test_drawn_cases_are_the_same_again() -> None:
    assert planted.drawn(1) == planted.drawn(1) != planted.drawn(2)
