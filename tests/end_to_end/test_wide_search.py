"""A search that starts wide, through the door: who waits, who goes on, and what is left
when the time is up meanwhile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from doorway import Door, World

from loraloom.pipeline.drive import Driver
from loraloom.records import Event
from loraloom.store.folder import RunFolder
from loraloom.store.replay import replay

TRIALS, SLOTS, STEPS = 9, 3, 40
FIRST, SECOND = 5, 15


@pytest.fixture
def words(world: World, tmp_path: Path) -> list[object]:
    return [
        "tune",
        "--model",
        world.llama,
        "--data",
        world.text,
        "--output-dir",
        tmp_path,
        "--name",
        "wide",
        "--trials",
        TRIALS,
        "--max-steps",
        STEPS,
        "--max-packed",
        SLOTS,
        "--quiet",
        "--set",
        "search.seeds_for_finalists=1",
        "--set",
        "training.warmup_ratio=0.05",
    ]


def told(folder: Path) -> tuple[dict[str, Any], list[Event]]:
    return json.loads((folder / "run.json").read_text()), list(RunFolder(folder).events())


def test_candidates_wait_at_two_rungs_and_a_third_goes_on(
    words: list[object], loraloom: Door, tmp_path: Path
) -> None:
    answer = loraloom(*words)
    assert answer.code == 0, answer.err
    result, events = told(tmp_path / "wide")
    steps = {trial["id"]: trial["steps"] for trial in result["trials"]}
    statuses = {trial["id"]: trial["status"] for trial in result["trials"]}
    assert set(statuses.values()) <= {"completed", "pruned", "diverged"}
    assert {steps[name] for name in statuses if statuses[name] == "pruned"} <= {FIRST, SECOND}
    assert statuses["t000"] == "completed"
    waits = [(event.trial, event.step) for event in events if event.kind == "waiting"]
    assert {step for _, step in waits} <= {FIRST, SECOND} and len(waits) >= TRIALS - 1
    assert all(name != "t000" for name, _ in waits)
    last = max(
        place for place, event in enumerate(events) if event.kind == "waiting" and event.step == FIRST
    )
    assert all(event.kind != "running" for event in events[:last]), (
        "nobody goes on before all have come as far"
    )
    reasons = [trial["reason"] for trial in result["trials"] if trial["status"] == "pruned"]
    assert all("place" in reason and "went on" in reason for reason in reasons)
    assert not (tmp_path / "wide" / "checkpoints").exists()
    again = {trial.id: trial.status for trial in replay("wide", events).trials}
    assert again == statuses


def test_the_time_may_end_while_candidates_wait(
    words: list[object], loraloom: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan's own setting is still training, others wait: the best of all are saved,
    and the best is kept."""
    run, over = Driver._run, list[bool]()

    def running(driver: Driver, *given: Any) -> None:
        def expired() -> bool:
            over.extend([True] * (len(driver.waiting) >= SLOTS + 2))
            return bool(over)

        driver.expired = expired
        run(driver, *given)

    monkeypatch.setattr(Driver, "_run", running)
    answer = loraloom(*words)
    assert answer.code == 0, answer.err
    result, _ = told(tmp_path / "wide")
    assert {trial["status"] for trial in result["trials"]} == {"pruned"}
    assert all("time" in trial["reason"] for trial in result["trials"])
    saved = [trial for trial in result["trials"] if trial["adapter"]]
    losses = sorted(trial["metrics"]["validation_loss"] for trial in result["trials"])
    assert sorted(trial["metrics"]["validation_loss"] for trial in saved) == losses[:SLOTS]
    assert (tmp_path / "wide" / "best" / "adapter_model.safetensors").is_file()


def test_a_careful_search_waits_for_nobody(words: list[object], loraloom: Door, tmp_path: Path) -> None:
    answer = loraloom(*words, "--set", "search.pruner=careful")
    assert answer.code == 0, answer.err
    _, events = told(tmp_path / "wide")
    assert all(event.kind not in ("waiting", "running") for event in events)
