"""The GPU benchmark's branches for CUDA run before there is a GPU. Their numbers mean nothing here."""

from __future__ import annotations

import importlib
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from recorded import recorded
from stand_in import StandIn

from loraloom.train.pack import PackTrainer

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks" / "gpu"))


pytestmark = pytest.mark.usefixtures("without_triton")


class Notes:
    """Takes down what parts tell."""

    left = 1e9

    def __init__(self, done: tuple[str, ...] = ()) -> None:
        self.done = done
        self.parts: dict[str, dict[str, Any]] = {}

    def begins(self, part: str, limit: float) -> None:
        pass

    def found(self, part: str, record: dict[str, Any]) -> None:
        self.parts[part] = record


def measured(step: str, *left_out: str) -> dict[str, dict[str, Any]]:
    """What the parts of a step found; none of them failed, and all were measured."""
    from steps.bench import Bench

    notes = Notes(left_out)
    importlib.import_module(f"steps.{step}").measure(Bench(notes, "cuda", small=True))
    assert {name: part["status"] for name, part in notes.parts.items()} == dict.fromkeys(
        notes.parts, "done"
    ), notes.parts
    return notes.parts


def test_the_machine_is_described(cuda: StandIn) -> None:
    found = measured("device")
    assert found["machine"]["device"] == "stand-in" and found["machine"]["capability"] == [9, 0]
    assert found["rates"]["from_host_bytes_per_second"] > 0


def test_packs_are_timed_beside_peft_with_their_memory(cuda: StandIn) -> None:
    found = measured("speed", "PEFT + Trainer, bf16")  # accelerate's autocast does not know the stand-in
    assert list(found) == [
        "PEFT loop",
        "PEFT loop, autocast",
        "PEFT + Trainer",
        "K=1",
        "K=2",
        "K=2 in two passes",
    ]
    assert all(part["run_ms"] > 0 and part["peak_bytes"] for part in found.values())
    assert {"forecast_bytes", "memory_error", "time_error"} <= set(found["K=2"])


def test_waits_are_told_by_their_line(cuda: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in cannot warn of its waits; here the reading of a tick's losses warns,
    as torch does on a GPU."""
    from steps import where_time_goes

    asked: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", asked.append)
    finish = PackTrainer._finish_windows

    def warned(self: PackTrainer, *args: Any) -> Any:
        if asked == ["warn"]:
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        return finish(self, *args)

    monkeypatch.setattr(PackTrainer, "_finish_windows", warned)
    found = measured("where_time_goes")
    (line,) = found["waits, K=2"]["by_line"]
    assert line.startswith("train/pack.py:") and Path(__file__).name in line
    assert found["waits, K=2"]["waits_per_tick"] == 1.0
    assert asked == ["warn", "default"]
    assert found["profile, K=2"]["busy_share"] and found["profile, K=2"]["top"]
    assert where_time_goes.SAID in "called a synchronizing CUDA operation"


def test_a_limit_of_memory_halves_the_pack(cuda: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in has no end of memory: with a limit set, passes of more than two
    candidates are refused."""
    limits: list[float] = []
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", limits.append)
    run = PackTrainer._run_pass

    def refusing(self: PackTrainer, group: Any, micro: Any) -> None:
        if limits and limits[-1] < 1 and len(group) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        run(self, group, micro)

    monkeypatch.setattr(PackTrainer, "_run_pass", refusing)
    found = measured("out_of_memory")["halved"]
    assert len(limits) == 2 and 0 < limits[0] < limits[1] == 1.0
    assert found["notes"] and found["losses_apart"] <= found["allowed"]


def test_graphs_are_compared_with_eager_passes(cuda: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    from steps import contract
    from steps.bench import Bench

    every = contract.kinds
    monkeypatch.setattr(contract, "kinds", lambda model, steps=3: every(model, steps)[:2])
    with recorded(cuda):
        found = contract.Trial(Bench(Notes(), "cuda", small=True)).as_eager("float32")
    assert found["ways"]["replays"] > 0 and found["ways"]["stopped"] is None
    assert len(found["apart"]) == 2 and found["worst"] < 1e-3
