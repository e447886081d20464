"""Findings as a user meets them: told at the end, kept in run.json, taken up by
--apply, and acted on unless --no-act."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from doorway import Answer, Door, Run, World, write_rows

from loraloom.store.folder import RunFolder

TARGETS_KEY = "adapter.target_modules"


def ran(door: Door, runs: Path, name: str, *words: object) -> Run:
    """A `train` of that name."""
    return Run(door("train", "--output-dir", runs, "--name", name, *words), runs / name)


@pytest.fixture(scope="module")
def exploded(world: World, loraloom: Door, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run at a rate that nothing survives; shared, so nobody writes into its folder but by --apply."""
    runs = tmp_path_factory.mktemp("exploded")
    words = ("--model", world.bert, "--data", world.labels, "--max-steps", 40, "--learning-rate", 0.9)
    return ran(loraloom, runs, "wild", *words)


def named(run: Run) -> list[str]:
    return [finding["name"] for finding in run.result["trials"][0]["findings"]]


def test_a_diverged_run_fails_with_the_command_that_mends_it(exploded: Run) -> None:
    assert exploded.answer.code == 1
    assert named(exploded)[0] == "diverged"
    assert "lower the learning rate" in exploded.answer.err
    assert f"loraloom train --apply {exploded.folder}" in exploded.answer.err


def test_apply_takes_the_change_and_a_name_that_is_free(exploded: Run, loraloom: Door) -> None:
    answer = loraloom("train", "--apply", f"{exploded.folder}:diverged", "--set", "training.max_steps=6")
    assert answer.code == 0, answer.err
    again = Run(answer, exploded.folder.with_name("wild-2"))
    asked = again.yaml("config.yaml")["training"]
    proposed = exploded.result["trials"][0]["findings"][0]["patch"]
    assert asked["learning_rate"] == proposed["training.learning_rate"] < 0.9
    assert asked["warmup_ratio"] == proposed["training.warmup_ratio"]
    assert asked["max_steps"] == 6, "--set wins"


def test_no_act_reports_and_goes_on(world: World, loraloom: Door, tmp_path: Path) -> None:
    words = ("--model", world.bert, "--data", world.labels, "--max-steps", 40, "--learning-rate", 0.9)
    stopped = ran(loraloom, tmp_path, "stopped", *words)
    assert stopped.result["trials"][0]["steps"] < 40
    told = ran(loraloom, tmp_path, "told", *words, "--no-act")
    trial = told.result["trials"][0]
    assert (told.answer.code, trial["status"], trial["steps"]) == (0, "completed", 40), told.answer.err
    assert RunFolder(told.folder).signals("t000")["seen_exit"], "what would have ended it was seen"
    assert [finding for finding in trial["findings"] if finding["level"] == "fault"]


def test_no_act_leaves_a_patience_that_was_asked_for(
    world: World, loraloom: Door, tmp_path: Path
) -> None:
    words = (
        "--model",
        world.bert,
        "--data",
        world.labels,
        "--max-steps",
        40,
        "--learning-rate",
        0.9,
        "--no-act",
    )
    run = ran(loraloom, tmp_path, "patient", *words, "--set", "training.early_stopping_patience=2")
    trial = run.result["trials"][0]
    assert (run.answer.code, trial["status"]) == (0, "completed"), run.answer.err
    assert trial["steps"] < 40 and "no gain on validation for 2 evaluations" in trial["reason"]


def test_signals_are_kept_with_the_trials_and_told_as_events(tuned: Run) -> None:
    whole = {event["trial"]: event["data"] for event in tuned.events if event["kind"] == "signals"}
    for trial in tuned.result["trials"]:
        signals = RunFolder(tuned.folder).signals(trial["id"])
        assert signals["readings"] and len(signals["readings"]) == len(whole[trial["id"]]["readings"])
        assert whole[trial["id"]]["trace"]["steps"][-1] == trial["steps"]
        assert sum(module["energy"] for module in signals["modules"].values()) == pytest.approx(1.0)
        assert all(
            0 < module["effective_rank"] <= module["r"] + 1e-6 for module in signals["modules"].values()
        )


def test_the_signals_can_be_left_out(world: World, loraloom: Door, tmp_path: Path) -> None:
    words = (
        "--model",
        world.llama,
        "--data",
        world.text,
        "--max-steps",
        4,
        "--set",
        "diagnose.signals=false",
    )
    run = ran(loraloom, tmp_path, "blind", *words)
    assert run.answer.code == 0, run.answer.err
    assert RunFolder(run.folder).signals("t000") == {}
    assert not [event for event in run.events if event["kind"] == "signals"]


def test_findings_are_printed_with_their_next_step(world: World, loraloom: Door, tmp_path: Path) -> None:
    run = ran(
        loraloom,
        tmp_path,
        "narrow",
        "--model",
        world.llama,
        "--data",
        world.text,
        "--max-steps",
        4,
        "--set",
        f"{TARGETS_KEY}=[layers.0.self_attn.q_proj]",
    )
    assert run.answer.code == 0, run.answer.err
    assert "warning: narrow-targets: few layers are trained" in run.answer.out
    assert "next: train all linear layers" in run.answer.out
    assert f"loraloom train --apply {run.folder}:narrow-targets" in run.answer.out
    assert "few layers are trained" in (run.folder / "report.html").read_text()


def test_rows_to_retain_are_scored_against_the_bare_base(
    world: World, loraloom: Door, tmp_path: Path
) -> None:
    kept = write_rows(
        tmp_path / "kept.jsonl", [{"text": "the soup waits by the door"}, {"text": "a horse turns"}]
    )
    words = (
        "--model",
        world.llama,
        "--data",
        world.text,
        "--max-steps",
        6,
        "--set",
        f"data.retain={kept}",
    )
    run = ran(loraloom, tmp_path, "kept", *words)
    assert run.answer.code == 0, run.answer.err
    change, error = RunFolder(run.folder).signals("t000")["retain_change"]
    assert change != 0 and error >= 0


def test_a_classifier_has_nothing_to_retain(world: World, loraloom: Door, tmp_path: Path) -> None:
    run = ran(
        loraloom,
        tmp_path,
        "no",
        "--model",
        world.bert,
        "--data",
        world.labels,
        "--set",
        f"data.retain={world.text}",
    )
    assert run.answer.code == 2
    assert "`data.retain`" in run.answer.err and not run.folder.exists()


def refused(answer: Answer, *parts: str) -> None:
    assert answer.code == 2, answer.err
    for part in parts:
        assert part in answer.err


def test_apply_says_what_it_cannot_do(
    exploded: Run, world: World, loraloom: Door, tmp_path: Path
) -> None:
    refused(
        loraloom("train", "--apply", f"{exploded.folder}:overfit"), "no finding `overfit`", "diverged"
    )
    refused(loraloom("train", "--apply", tmp_path / "nowhere"), "there is no run folder")
    refused(
        loraloom("train", exploded.folder / "config.yaml", "--apply", exploded.folder),
        "uses the config of the run",
    )


def test_a_test_of_another_source_is_told_with_what_differs(
    world: World, loraloom: Door, tmp_path: Path
) -> None:
    """Words in no order: what was learnt of sentences helps little there."""
    rng = random.Random(0)
    rows = [json.loads(line) for line in Path(world.labels).read_text().splitlines()]
    mixed = [
        {"text": " ".join(rng.sample(words, len(words)) * 2)}
        for row in rows[:60]
        if (words := row["text"].split())
    ]
    sentences = write_rows(tmp_path / "sentences.jsonl", [{"text": row["text"]} for row in rows])
    words = (
        "--model",
        world.llama,
        "--data",
        sentences,
        "--validation",
        0.2,
        "--learning-rate",
        0.01,
        "--max-steps",
        60,
    )
    other = ran(
        loraloom, tmp_path, "other", *words, "--test", write_rows(tmp_path / "mixed.jsonl", mixed)
    )
    assert other.answer.code == 0, other.answer.err
    (found,) = [each for each in other.result["findings"] if each["name"] == "validation-unlike-test"]
    assert (
        found["level"] == "warning"
        and "take validation rows from where the test's come from" in found["next"]
    )
    assert (
        "the test has a source of its own" in found["evidence"]
        and "tokens in the test" in found["evidence"]
    )
    assert "warning: validation-unlike-test" in other.answer.out
    assert "validation does not represent the test" in (other.folder / "report.html").read_text()
    same = ran(loraloom, tmp_path, "same", *words, "--test", 0.2)
    assert not [each for each in same.result["findings"] if each["name"] == "validation-unlike-test"]
