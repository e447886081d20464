"""Checkpoints on disk: whole or not there, the one before in reserve, and a word for
everything that is wrong with one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from loraloom.errors import RunError, StoreError
from loraloom.train import checkpoint
from loraloom.train.checkpoint import load, save


class Trainer:
    """As much of a `PackTrainer` as a checkpoint asks for: a step that counts, and
    tensors that follow it."""

    def __init__(self) -> None:
        self.step = 0

    def state_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "loss": float("nan"),
            "tensors": {"t000/weights": torch.full((64,), float(self.step))},
        }

    def saved(self, folder: Path, step: int) -> Path:
        self.step = step
        return save(folder, self, {"step": step})  # type: ignore[arg-type]


@pytest.fixture
def trainer() -> Trainer:
    return Trainer()


def step_of(folder: Path) -> tuple[int, int, float]:
    found = load(folder)
    assert found is not None
    return found.trainer["step"], found.run["step"], float(found.trainer["tensors"]["t000/weights"][0])


def test_nothing_there_is_no_checkpoint(tmp_path: Path) -> None:
    assert load(tmp_path) is None
    assert load(tmp_path / "absent") is None


def test_the_latest_is_read_and_the_last_two_are_kept(tmp_path: Path, trainer: Trainer) -> None:
    for step in range(1, 6):
        trainer.saved(tmp_path, step)
        assert step_of(tmp_path) == (step, step, step)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {f"checkpoint-{n:06}.{kind}" for n in (4, 5) for kind in ("json", "safetensors")}


def spoil_byte(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


SPOILT: Mapping[str, Callable[[Path], object]] = {
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-7]),
    "empty": lambda path: path.write_bytes(b""),
    "one bit": lambda path: spoil_byte(path, -9),
    "gone": lambda path: path.unlink(),
    "something else": lambda path: path.write_bytes(b"[1, 2, 3]"),
    "nothing": lambda path: path.write_bytes(b"null"),
}


@pytest.mark.parametrize("kind", ["json", "safetensors"])
@pytest.mark.parametrize("fault", SPOILT)
def test_a_spoilt_one_gives_way_to_the_one_before(
    kind: str, fault: str, tmp_path: Path, trainer: Trainer
) -> None:
    trainer.saved(tmp_path, 1)
    latest = trainer.saved(tmp_path, 2)
    SPOILT[fault](latest.with_suffix(f".{kind}"))
    found = load(tmp_path)
    assert found is not None and found.trainer["step"] == 1
    if (kind, fault) != ("json", "gone"):
        assert len(found.passed_over) == 1 and found.passed_over[0].startswith(
            "checkpoint-000002.json: "
        )
    trainer.saved(tmp_path, 3)
    assert step_of(tmp_path) == (3, 3, 3)


def test_all_spoilt_is_an_error_that_says_so(tmp_path: Path, trainer: Trainer) -> None:
    for step in (1, 2):
        trainer.saved(tmp_path, step).write_text("{}")
    with pytest.raises(RunError, match="no checkpoint can be read") as caught:
        load(tmp_path)
    assert "checkpoint-000001.json" in str(caught.value) and "checkpoint-000002.json" in str(
        caught.value
    )
    assert "begins anew" in str(caught.value)


def test_what_was_written_beside_it_may_speak_against_it(tmp_path: Path, trainer: Trainer) -> None:
    trainer.saved(tmp_path, 1)
    trainer.saved(tmp_path, 2)
    found = load(tmp_path, lambda run: "events.jsonl is too short" if run["step"] == 2 else None)
    assert found is not None and found.run["step"] == 1
    assert found.passed_over == ("checkpoint-000002.json: events.jsonl is too short",)


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("number", range(4))
def test_an_end_in_the_middle_of_writing_leaves_the_one_before(
    call: str, number: int, tmp_path: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a SIGKILL would: whatever follows the n-th call to the disk does not happen."""
    trainer.saved(tmp_path, 1)
    calls = iter(range(100))

    class Killed(BaseException):
        pass

    owner: Any = os if call == "fsync" else Path
    real = getattr(owner, call)

    def until(*given: Any) -> Any:
        if next(calls) >= number:
            raise Killed
        return real(*given)

    with monkeypatch.context() as patch:
        patch.setattr(owner, call, until)
        try:
            trainer.saved(tmp_path, 2)
            whole = True
        except Killed:
            whole = False
    step = step_of(tmp_path)[0]
    assert step == 2 if whole else step in (1, 2)
    trainer.saved(tmp_path, 3)
    assert step_of(tmp_path) == (3, 3, 3)
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith("checkpoint-")]


def test_a_full_disk_is_told_and_costs_nothing(
    tmp_path: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer.saved(tmp_path, 1)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match="the disk is full") as caught:
            trainer.saved(tmp_path, 2)
    assert "--resume" in str(caught.value)
    assert step_of(tmp_path) == (1, 1, 1)


def test_an_older_version_is_brought_up_step_by_step(
    tmp_path: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer.saved(tmp_path, 1)
    monkeypatch.setattr(checkpoint, "VERSION", 3)
    with pytest.raises(RunError, match="version 1"):
        load(tmp_path)
    steps = {
        1: lambda body: {**body, "version": 2, "run": {**body["run"], "two": True}},
        2: lambda body: {**body, "version": 3, "run": {**body["run"], "three": body["run"]["two"]}},
    }
    monkeypatch.setattr(checkpoint, "MIGRATIONS", steps)
    found = load(tmp_path)
    assert found is not None and found.run == {"step": 1, "two": True, "three": True}


def test_no_pickle_is_written(tmp_path: Path, trainer: Trainer) -> None:
    path = trainer.saved(tmp_path, 1)
    assert json.loads(path.read_bytes())["version"] == checkpoint.VERSION
    assert {file.suffix for file in tmp_path.iterdir()} == {".json", ".safetensors"}
