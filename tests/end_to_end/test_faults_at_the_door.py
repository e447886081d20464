"""What can go wrong under a run, really provoked: each time the run says so, loses
nothing, and goes on or ends as it should.

docs/faults.md is the table of all faults, with the tests in other files. Here: full disk, closed folder,
memory that runs out, numbers that are not finite, databases broken or locked, runs and processes at the
same time, a clock that is set back.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from doorway import Door, World, write_rows
from nursery import Nursery
from safetensors.torch import load_file

from loraloom.lora.packed import PackedModel
from loraloom.pipeline import live_index
from loraloom.records import Candidate
from loraloom.store.database import Database
from loraloom.store.folder import RunFolder
from loraloom.train.pack import PackTrainer
from loraloom.train.seat import Seat

Words = list[object]


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as one:
        yield one


@pytest.fixture
def tune(world: World, tmp_path: Path) -> Words:
    return [
        "tune",
        "--model",
        world.llama,
        "--data",
        world.text,
        "--output-dir",
        tmp_path / "runs",
        "--trials",
        2,
        "--max-steps",
        6,
        "--max-packed",
        2,
        "--set",
        "search.seeds_for_finalists=1",
        "--quiet",
    ]


def result_in(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


@pytest.mark.parametrize("most", [100_000, 250_000], ids=["at its first checkpoint", "at a later one"])
def test_a_full_disk(most: int, tune: Words, nursery: Nursery, tmp_path: Path) -> None:
    log, folder = tmp_path / "log", tmp_path / "runs" / "full"
    code = nursery.run_with(*tune, "--name", "full", log=log, limits={"files": most})
    said = log.read_text()
    assert code == 1, said
    assert ("error: " in said and "full" in said.lower()) or "too large" in said.lower()
    assert f"loraloom tune --resume {folder}" in said and "Traceback" not in said
    assert result_in(folder)["status"] == "failed"
    assert nursery.run("tune", "--resume", folder, log=log)[0] == 0, log.read_text()
    assert result_in(folder)["status"] == "completed"
    started = [event.trial for event in RunFolder(folder).events() if event.kind == "trial_started"]
    assert started == ["t000", "t001"]


def test_a_folder_that_may_not_be_written(tune: Words, loraloom: Door, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    root.mkdir(mode=0o555)
    mounted = os.access(root, os.W_OK)
    if (
        mounted
        and subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", root], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("root may write everywhere, and may not mount a disk here")
    try:
        answer = loraloom(*tune, "--name", "one")
        assert answer.code in (1, 2)
        assert (
            answer.err.startswith("error: ")
            and "--output-dir" in answer.err
            and "Traceback" not in answer.err
        )
        assert not list(root.iterdir())
    finally:
        if mounted:
            subprocess.run(["umount", root], check=True)


def test_memory_that_runs_out(world: World, nursery: Nursery, tmp_path: Path) -> None:
    """A pass of 320 long rows needs far more than is there; one of a few does not."""
    words = ["the cat", "a dog", "the bird", "sleeps", "waits", "in the house", "by the door"]
    rows = [
        {"text": " ".join(words[(number // 7**place) % 7] for place in range(16))}
        for number in range(400)
    ]
    data, log = write_rows(tmp_path / "long.jsonl", rows), tmp_path / "log"
    code = nursery.run_with(
        "train",
        "--model",
        world.llama,
        "--data",
        data,
        "--output-dir",
        tmp_path / "runs",
        "--name",
        "small",
        "--max-steps",
        2,
        "--batch-size",
        320,
        "--set",
        "training.gradient_checkpointing=false",
        log=log,
        limits={"memory": 12 * 2**20},
    )
    folder, said = tmp_path / "runs" / "small", log.read_text()
    assert (
        "memory ran out" in said and "Traceback" not in said and "should not have happened" not in said
    )
    if code:
        assert code == 1 and f"loraloom train --resume {folder}" in said, said
        assert nursery.run("train", "--resume", folder, log=log)[0] == 0, log.read_text()
    assert result_in(folder)["trials"][0]["status"] == "completed"


@pytest.fixture
def room_for(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let memory run out when more than so many candidates are in the pack."""
    add = PackedModel.add

    def room(most: int) -> None:
        def or_not(packed: PackedModel, slot: str, *given: Any) -> Any:
            if len(packed.adapters) >= most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return add(packed, slot, *given)

        monkeypatch.setattr(PackedModel, "add", or_not)

    return room


@pytest.mark.parametrize(
    "packed", [["--max-packed", 4], []], ids=["as many as were asked for", "as many as were planned"]
)
def test_a_candidate_that_finds_no_memory_waits_for_one_that_leaves(
    packed: Words,
    tune: Words,
    loraloom: Door,
    tmp_path: Path,
    room_for: Callable[[int], None],
    stopping: Callable[[int | None], None],
) -> None:
    most = tune.index("--max-packed")
    words = [*tune[:most], *tune[most + 2 :], "--set", "search.pruner=none", *packed]
    words[words.index("--trials") + 1] = 5
    room_for(2)
    stopping(2)
    assert loraloom(*words, "--name", "small").code == 130
    stopping(None)
    folder = tmp_path / "runs" / "small"
    answer = loraloom("tune", "--resume", folder, "--quiet")
    assert answer.code == 0, answer.err
    result = result_in(folder)
    assert [trial["status"] for trial in result["trials"] if "s" not in trial["id"]] == ["completed"] * 5
    assert sum("memory ran out when" in note for note in result["notes"]) == 1
    together = most_at_once(RunFolder(folder))
    assert together == 2


def most_at_once(folder: RunFolder) -> int:
    """How many candidates trained side by side at most."""
    now, most = 0, 0
    for event in folder.events():
        now += (event.kind == "trial_started") - (event.kind == "completed" and event.trial is not None)
        most = max(most, now)
    return most


def test_no_memory_for_the_first_candidate_ends_the_run(
    tune: Words, loraloom: Door, tmp_path: Path, room_for: Callable[[int], None]
) -> None:
    room_for(0)
    answer = loraloom(*tune, "--name", "none")
    assert answer.code == 1 and answer.err.count("CUDA out of memory. Tried to allocate 2.00 GiB") == 1
    assert f"next: loraloom tune --resume {tmp_path / 'runs' / 'none'}" in answer.err
    assert "memory ran out" in result_in(tmp_path / "runs" / "none")["reason"]


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_numbers_that_are_not_finite(
    number: float, tune: Words, loraloom: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    join = PackTrainer.join

    def with_one_bad(trainer: PackTrainer, candidate: Candidate) -> Seat:
        seat = join(trainer, candidate)
        if candidate.id == "t001":
            seat.adapter.arena.weights.fill_(number)
            seat.adapter.refresh()
        return seat

    monkeypatch.setattr(PackTrainer, "join", with_one_bad)
    answer = loraloom(*tune, "--name", "wild")
    assert answer.code == 0, answer.err
    folder = tmp_path / "runs" / "wild"
    bad = next(trial for trial in result_in(folder)["trials"] if trial["id"] == "t001")
    assert bad["status"] == "diverged" and "not finite" in bad["reason"]
    healthy = [trial for trial in result_in(folder)["trials"] if trial["status"] == "completed"]
    assert healthy
    for trial in healthy:
        tensors = load_file(folder / trial["adapter"] / "adapter_model.safetensors")
        assert all(bool(tensor.isfinite().all()) for tensor in tensors.values())


def test_a_broken_database(tune: Words, loraloom: Door, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    root.mkdir()
    (root / "loraloom.db").write_bytes(b"no database, and never was one " * 300)
    assert loraloom(*tune, "--name", "one").code == 0
    assert (root / "loraloom.db.broken-1").is_file()
    (root / "loraloom.db").write_bytes(b"and again " * 1000)
    listed = loraloom("runs", "--output-dir", root, "--json").json()
    assert [(run["name"], run["status"], run["trials"]) for run in listed] == [("one", "completed", 2)]


def test_a_locked_database(
    tune: Words, loraloom: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "runs"
    root.mkdir()
    with Database(f"sqlite:///{root / 'loraloom.db'}") as database:
        database.runs()
    monkeypatch.setattr(live_index, "WAIT_SECONDS", 0.2)
    holder = sqlite3.connect(root / "loraloom.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    words = [word for word in tune if word != "--quiet"]
    answer = loraloom(*words, "--name", "one")
    assert answer.code == 0, answer.err
    assert "the index of runs was not brought up to date" in answer.err
    assert result_in(root / "one")["status"] == "completed"
    holder.execute("ROLLBACK")
    holder.close()
    listed = loraloom("runs", "--output-dir", root, "--json").json()
    assert [(run["name"], run["status"]) for run in listed] == [("one", "completed")]


def test_two_runs_in_one_output_folder(
    tune: Words, nursery: Nursery, loraloom: Door, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    codes = nursery.run_together([*tune, "--name", "one"], [*tune, "--name", "two"], log=log)
    assert codes == [0, 0], log.read_text()
    listed = loraloom("runs", "--output-dir", tmp_path / "runs", "--json").json()
    assert sorted((run["name"], run["status"], run["trials"]) for run in listed) == [
        ("one", "completed", 2),
        ("two", "completed", 2),
    ]


def test_two_processes_on_one_run(tune: Words, nursery: Nursery, tmp_path: Path) -> None:
    log, folder = tmp_path / "log", tmp_path / "runs" / "one"
    nursery.run_with(*tune, "--name", "one", log=log, limits={"files": 100_000})
    again = ["tune", "--resume", folder, "--quiet"]
    codes = nursery.run_together(again, again, log=log)
    assert sorted(codes) == [0, 2], log.read_text()
    assert "being worked on by another process" in log.read_text() or "is finished" in log.read_text()
    kinds = [event.kind for event in RunFolder(folder).events()]
    assert kinds.count("run_started") == kinds.count("run_finished") == 1
    assert result_in(folder)["status"] == "completed"


def test_a_clock_that_is_set_back(
    tune: Words, loraloom: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = itertools.count()
    monkeypatch.setattr(time, "time", lambda: 1.8e9 - 3600.0 * next(hours))
    assert loraloom(*tune, "--name", "one").code == 0
    result = result_in(tmp_path / "runs" / "one")
    times = [event.at for event in RunFolder(tmp_path / "runs" / "one").events()]
    assert times == sorted(times) and times[0] >= 0
    assert 0 < result["seconds"] < 3600 and all(
        0 <= trial["seconds"] < 3600 for trial in result["trials"]
    )
