"""What a user asks of a run while it goes: prune, clone, extend, note, stop. Each is obeyed once, at its
moment, and again at the same one when the run goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from doorway import Answer, Door, World

from loraloom.pipeline import obey
from loraloom.records import Event
from loraloom.store.control import Command, append, new_uuid
from loraloom.store.folder import RunFolder
from loraloom.train.pack import PackTrainer

Words = list[object]
Ask = Callable[..., None]


@pytest.fixture
def tune(world: World, tmp_path: Path) -> Words:
    """Five candidates of ten steps, two at a time, none of them pruned by the search."""
    words: Words = ["tune", "--model", world.llama, "--data", world.text, "--output-dir", tmp_path]
    words += ["--name", "one", "--quiet", "--no-history", "--max-steps", 10, "--trials", 4]
    for key, value in {
        "limits.max_packed": 2,
        "search.seeds_for_finalists": 1,
        "search.pruner": "none",
        "search.space": "{training.learning_rate: {low: 1.0e-4, high: 1.0e-2, log: true}}",
    }.items():
        words += ["--set", f"{key}={value}"]
    return words


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "one"


@pytest.fixture
def ask(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ask]:
    """Append commands after so many ticks of this process. Files are looked at before every tick."""
    monkeypatch.setattr(obey, "LOOK_SECONDS", 0.0)
    at: dict[int, list[Command]] = {}
    done, tick = [0], PackTrainer.tick

    def counted(trainer: PackTrainer) -> list[Event]:
        events = tick(trainer)
        if not any(trial.startswith("warmup") for trial in trainer.seats):
            done[0] += 1
            for command in at.pop(done[0], ()):
                append(RunFolder(folder), command)
        return events

    monkeypatch.setattr(PackTrainer, "tick", counted)

    def asked(ticks: int, verb: str, trial: str | None = None, **more: Any) -> None:
        at.setdefault(done[0] + ticks, []).append(Command(new_uuid(), verb, trial, **more))

    yield asked
    assert not at, "a command was never appended: the test shows nothing"


def result_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


def trials_of(folder: Path) -> dict[str, Any]:
    return {trial["id"]: trial for trial in result_of(folder)["trials"]}


def told(folder: Path) -> list[dict[str, Any]]:
    events = map(json.loads, (folder / "events.jsonl").read_text().splitlines())
    return [event["data"] for event in events if event["kind"] == "command"]


def adapters(folder: Path) -> dict[str, bytes]:
    return {
        path.parent.parent.name: path.read_bytes()
        for path in folder.glob("trials/*/adapter/adapter_model.safetensors")
    }


def went_well(answer: Answer) -> None:
    assert answer.code == 0, answer.err


def test_prune_clone_extend_note(tune: Words, loraloom: Door, ask: Ask, folder: Path) -> None:
    ask(4, "prune", "t001")
    ask(4, "note", text="t001 looked bad")
    ask(6, "clone", "t000", changes={"training.learning_rate": 3e-3, "adapter.r": 4})
    ask(6, "clone", "t000", changes={"warm": True, "training.learning_rate": 1e-4})
    ask(8, "extend", changes={"trials": 2})
    went_well(loraloom(*tune))
    trials = trials_of(folder)
    assert {trial for trial in trials if "s" not in trial} == {f"t00{n}" for n in range(8)}
    pruned = trials["t001"]
    assert (pruned["status"], pruned["reason"]) == ("pruned", "pruned by hand")
    assert pruned["steps"] == 4 and pruned["adapter"], "as it was at its best"
    made = [trial for trial in trials.values() if trial["role"] == "hand"]
    assert [(one["parent"], one["warm"], one["status"]) for one in made] == [
        ("t000", False, "completed"),
        ("t000", True, "completed"),
    ]
    assert made[0]["settings"]["adapter.r"] == 4 and made[0]["params"]["adapter.r"] == 4
    assert [data["state"] for data in told(folder)] == ["applied"] * 5
    assert [data.get("made") for data in told(folder)][2:4] == [one["id"] for one in made]
    notes = result_of(folder)["notes"]
    assert any(note.startswith("by hand, after ") and note.endswith("t001 looked bad") for note in notes)
    assert "t001" not in {trial.partition("s")[0] for trial in trials if "s" in trial}, "it did not race"
