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
        "search.seeds_for_finalists": 2,
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
    raced = {trial.partition("s")[0] for trial in trials if "s" in trial}
    assert raced and "t001" not in raced


def test_steer_at_the_door(tune: Words, loraloom: Door, ask: Ask, folder: Path) -> None:
    """As from another process while it runs: here from within a tick, so that nobody may wait."""
    said: list[Answer] = []
    at = {
        2: ("note", "seen", "with", "--wait", 0),
        3: ("clone", "t000", "--set", "training.learning_rate=2e-3", "--wait", 0),
        4: ("extend", 1, "--wait", 0),
    }
    done, tick = [0], PackTrainer.tick

    def counted(trainer: PackTrainer) -> list[Event]:
        events = tick(trainer)
        if not any(trial.startswith("warmup") for trial in trainer.seats):
            done[0] += 1
            if done[0] in at:
                said.append(loraloom("steer", folder, *at[done[0]], "--json"))
        return events

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PackTrainer, "tick", counted)
        went_well(loraloom(*tune))
    assert [(one.code, one.json()["state"]) for one in said] == [(0, "asked")] * 3, said
    assert [one["uuid"] for one in told(folder)] == [one.json()["uuid"] for one in said]
    assert trials_of(folder)["t005"]["role"] == "sampled"
    finished = loraloom("steer", folder, "stop")
    assert finished.code == 2 and "is finished" in finished.err and "next: " in finished.err


def test_a_warm_clone_begins_with_its_parents_best(
    tune: Words, loraloom: Door, ask: Ask, folder: Path
) -> None:
    """Of one that trains, and of one that has ended: with next to no rate it stays as good."""
    still = {"warm": True, "training.learning_rate": 1e-12, "training.max_steps": 2}
    ask(6, "clone", "t000", changes=still)
    ask(14, "clone", "t000", changes=still)
    went_well(loraloom(*tune))
    living, ended = (trial for trial in trials_of(folder).values() if trial["role"] == "hand")
    events = map(json.loads, (folder / "events.jsonl").read_text().splitlines())
    seen = {
        event["step"]: event["data"]["loss"]
        for event in events
        if event["kind"] == "evaluated" and event["trial"] == "t000" and event["step"]
    }
    before = min(loss for step, loss in seen.items() if step <= 6)
    for clone, parent in ((living, before), (ended, min(seen.values()))):
        assert clone["steps"] == 2 and clone["metrics"]["validation_loss"] == pytest.approx(
            parent, rel=1e-5
        )
    assert before != min(seen.values()), "the two were not the same weights"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("kill",), "one of prune, stop, clone, extend, note"),
        (("prune",), "needs a trial"),
        (("extend", "many"), "the number of candidates"),
        (("clone", "t000", "--set", "adapter.rank=3"), "did you mean"),
        (("clone", "t000", "--set", "adapter.r"), "KEY=VALUE"),
        (("stop",), "no process works on run"),
    ],
)
def test_what_cannot_be_asked(loraloom: Door, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    RunFolder.create(tmp_path, "idle").append(Event("run_started", data={"verb": "tune"}))
    answer = loraloom("steer", tmp_path / "idle", *words)
    assert answer.code == 2 and said in answer.err and "\n  next: " in answer.err, answer.err
    assert not (tmp_path / "idle" / "control.jsonl").exists()


def test_what_cannot_be_done_is_refused_with_its_reason(
    tune: Words, loraloom: Door, ask: Ask, folder: Path
) -> None:
    ask(1, "prune", "t099")
    ask(1, "clone", "t099", changes={"adapter.r": 2})
    ask(1, "clone", "t000", changes={"adapter.target_modules": ["no_such_layer"]})
    ask(1, "clone", "t000", changes={"training.optim": "adamw_8bit"})
    ask(1, "clone", "t000", changes={"adapter.r": 10**9})
    ask(1, "clone", "t000", changes={"adapter.r": 2, "warm": True})
    ask(1, "clone", "t001", changes={"warm": True})
    ask(22, "prune", "t000")
    ask(41, "clone", "t001", changes={"adapter.r": 2})
    ask(41, "extend", changes={"trials": 1})
    went_well(loraloom(*tune, "--set", "training.gradient_accumulation_steps=2"))
    assert {data["state"] for data in told(folder)} == {"refused"}
    reasons = [data["reason"] for data in told(folder)]
    for reason, words in zip(
        reasons,
        [
            "none of this run's",
            "none of this run's",
            "no_such_layer",
            "adamw_8bit",
            "of memory",
            "its adapter would be another (r)",
            "no weights to begin with",
            "has ended already: it is completed",
            "the search is over",
            "the search is over",
        ],
        strict=True,
    ):
        assert words in reason and "\n" not in reason, reason
    assert len([trial for trial in trials_of(folder) if "s" not in trial]) == 4


def test_stop_and_go_on(tune: Words, loraloom: Door, ask: Ask, folder: Path) -> None:
    """As Ctrl-C: a checkpoint, exit code 130, and the end that it would have come to anyway."""
    went_well(loraloom(*tune[: tune.index("one")], "undisturbed", *tune[tune.index("one") + 1 :]))
    ask(7, "stop")
    stopped = loraloom(*tune)
    assert stopped.code == 130 and "Traceback" not in stopped.err
    assert f"loraloom tune --resume {folder}" in stopped.err
    assert result_of(folder)["status"] == "interrupted"
    idle = loraloom("steer", folder, "prune", "t001")
    assert idle.code == 2 and f"loraloom tune --resume {folder}" in idle.err
    append(RunFolder(folder), Command(new_uuid(), "stop"))  # nobody was there to obey it
    went_well(loraloom("tune", "--resume", folder, "--quiet"))
    assert adapters(folder) == adapters(folder.with_name("undisturbed"))
    assert [data["state"] for data in told(folder)] == ["applied", "refused"]


def test_train_ends_where_its_candidate_is_taken_out(
    world: World, loraloom: Door, ask: Ask, folder: Path
) -> None:
    """What was best so far is proven and kept; before there is anything to keep, it is refused."""
    ask(1, "prune", "t000")
    ask(2, "clone", "t000", changes={"adapter.r": 2})
    ask(6, "prune", "t000")
    words: Words = ["train", "--model", world.llama, "--data", world.text, "--max-steps", 10]
    went_well(
        loraloom(
            *words,
            "--output-dir",
            folder.parent,
            "--name",
            "one",
            "--quiet",
            "--set",
            "training.gradient_accumulation_steps=2",
        )
    )
    trial = trials_of(folder)["t000"]
    assert (trial["status"], trial["reason"], trial["steps"]) == ("pruned", "pruned by hand", 3)
    assert (folder / "best" / "adapter_model.safetensors").is_file()
    assert [data["state"] for data in told(folder)] == ["refused", "refused", "applied"]


def test_foreign_lines_cost_one_note(tune: Words, loraloom: Door, ask: Ask, folder: Path) -> None:
    ask(3, "note", text="fine")
    tick = PackTrainer.tick

    def noisy(trainer: PackTrainer) -> list[Event]:
        with (folder / "control.jsonl").open("ab") as file:
            file.write(b"hello\n")
        return tick(trainer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PackTrainer, "tick", noisy)
        went_well(loraloom(*tune))
    assert result_of(folder)["notes"].count(obey.FOREIGN) == 1
    assert [data["state"] for data in told(folder)] == ["applied"]
