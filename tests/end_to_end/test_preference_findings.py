"""What a preference run says of itself: findings, drift, rows to retain, and an SFT run before it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from doorway import Answer, Door, Run, World, write_rows

ANIMALS = ("the cat", "a dog", "the bird", "a horse")
FOODS = ("the warm soup", "a cake", "the bread", "one pear more")
VERBS = ("sleeps", "waits", "stands", "turns", "falls", "rests")
PLACES = ("in the house", "by the door", "under the tree", "near the river", "on the table")
Pair = dict[str, str]
Train = Callable[..., Run]


def pairs(wrong_way_round: bool = False) -> list[Pair]:
    """Of two sentences the one about an animal is preferred."""
    made: list[Pair] = []
    both = zip(ANIMALS, FOODS, strict=True)
    for (animal, food), verb, place in itertools.product(both, VERBS, PLACES):
        sides = [f"{animal} {verb} {place}", f"{food} {verb} {place}"]
        chosen, rejected = reversed(sides) if wrong_way_round else sides
        made.append({"prompt": f"what {verb} {place}", "chosen": chosen, "rejected": rejected})
    return made


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("preferred")
    right, wrong = pairs(), pairs(wrong_way_round=True)
    return {
        "train": write_rows(root / "train.jsonl", right[::2]),
        "swapped": write_rows(root / "swapped.jsonl", wrong[::2]),
        "validation": write_rows(root / "validation.jsonl", right[1::2]),
    }


@pytest.fixture
def train(world: World, loraloom: Door, files: dict[str, str], tmp_path: Path) -> Train:
    def start(data: str, *more: object, name: str = "one") -> Run:
        words = ["train", "--model", world.llama, "--data", files[data]]
        words += ["--validation", files["validation"], "--output-dir", str(tmp_path)]
        answer: Answer = loraloom(*words, "--name", name, "--quiet", *more)
        assert answer.code == 0, answer.err
        return Run(answer, tmp_path / name)

    return start


def found(run: Run) -> list[str]:
    result = run.result
    return [one["name"] for one in [*result["findings"], *result["trials"][0]["findings"]]]


def test_swapped_sides_are_said(train: Train) -> None:
    run = train("swapped", "--learning-rate", "0.003", "--max-steps", "24")
    assert run.result["trials"][0]["metrics"]["validation_reward_accuracy"] < 0.5
    assert "preference-not-learnt" in found(run)
    assert "swapped" in (run.folder / "report.html").read_text()


def test_a_run_that_tells_pairs_apart_has_no_fault(train: Train) -> None:
    run = train("train", "--learning-rate", "0.003", "--max-steps", "20")
    assert run.result["trials"][0]["metrics"]["validation_reward_accuracy"] > 0.9
    faults = {"preference-not-learnt", "beta-too-small", "chosen-falling", "already-preferred"}
    assert not faults & {*found(run)}


def test_pairs_that_the_reference_ranks_already_are_said(
    train: Train, world: World, loraloom: Door, tmp_path: Path
) -> None:
    """The reference has learnt the chosen answers by heart."""
    chosen = [{"prompt": pair["prompt"], "completion": pair["chosen"]} for pair in pairs()]
    words = ["--data", write_rows(tmp_path / "chosen.jsonl", chosen), "--output-dir", tmp_path]
    words += ["--name", "first", "--learning-rate", "0.01", "--max-steps", "40", "--quiet"]
    assert loraloom("train", "--model", world.llama, *words).code == 0
    run = train("train", "--set", f"adapter.init_from={tmp_path / 'first'}", "--max-steps", "1")
    (told,) = [one for one in run.result["findings"] if one["name"] == "already-preferred"]
    assert "the reference prefers nearly all" in told["symptom"] and "held-out pairs" in told["evidence"]
    said = [event["data"].get("text", "") for event in run.events if event["kind"] == "note"]
    assert sum(text.startswith("the reference prefers nearly all") for text in said) == 1


def test_drift_and_what_is_retained_are_measured(train: Train, world: World) -> None:
    more = ["--learning-rate", "0.003", "--max-steps", "12", "--set", f"data.retain={world.text}"]
    run = train("train", *more)
    metrics: dict[str, float] = run.result["best"]["metrics"]
    assert metrics["written_kl"] > -2 * metrics["written_kl_se"]
    assert metrics["written_length_ratio"] > 0
    assert "retain_change" in metrics and "retain_change_se" in metrics
    assert -1 <= metrics["validation_length_correlation"] <= 1
    page = (run.folder / "report.html").read_text()
    assert "on what it writes" in page and "rows to retain" in page


def test_what_was_learnt_before_is_the_reference(
    train: Train, world: World, loraloom: Door, tmp_path: Path
) -> None:
    told = ["--output-dir", tmp_path, "--name", "first", "--max-steps", "8", "--quiet"]
    first = loraloom("train", "--model", world.llama, "--data", world.text, *told)
    assert first.code == 0, first.err
    begun = ["--set", f"adapter.init_from={tmp_path / 'first'}", "--max-steps", "6"]
    run = train("train", *begun, name="second")
    before: dict[str, Any] = run.result["initial"]["metrics"]
    assert before["validation_chosen_logratio"] == pytest.approx(0.0, abs=1e-4)
    assert run.yaml("resolved.yaml")["preference.reference"]["value"] == str(tmp_path / "first")
    against_base = train("train", *begun, "--set", "preference.reference=base", name="third")
    moved = against_base.result["initial"]["metrics"]["validation_chosen_logratio"]
    assert abs(moved) > 1e-3
    notes = " ".join(json.loads((against_base.folder / "run.json").read_text())["notes"])
    assert "counts as drift" in notes
