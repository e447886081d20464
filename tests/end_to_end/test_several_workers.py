"""A search on several worker processes: the same adapters, whatever becomes of workers or driver."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from shutil import copyfile, copytree
from typing import Any

import psutil
import pytest
from doorway import Door, World
from safetensors.torch import load_file

from loraloom.errors import DataError, DeviceError, ModelError, StoreError
from loraloom.execute.host import Invitation, join
from loraloom.pipeline import turns
from loraloom.pipeline.prepare import prepare
from loraloom.pipeline.run_log import set_up
from loraloom.pipeline.worker_from_request import invitation_to
from loraloom.pipeline.write_timer import WriteTimer

TOLERANCE = 1e-4
"""Relative: in other company a candidate's products are summed in another order."""


def words_of(world: World, runs: Path, trials: int = 4, steps: int = 16) -> list[object]:
    """A search in which nothing is pruned, so that two of them train the same."""
    return [
        *(
            "tune",
            "--model",
            world.llama,
            "--data",
            world.text,
            "--output-dir",
            runs,
            "--trials",
            trials,
        ),
        *("--max-steps", steps, "--max-packed", 2, "--batch-size", 2, "--quiet", "--no-history"),
        *("--set", "search.pruner=none", "--set", "search.seeds_for_finalists=1"),
        *("--set", "training.gradient_accumulation_steps=2"),
    ]


def events_of(folder: Path) -> list[dict[str, Any]]:
    path = folder / "events.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.is_file() else []
    return [json.loads(line) for line in lines]


def workers_of(process: psutil.Process) -> list[psutil.Process]:
    """Its worker processes, the oldest first."""
    children = [one for one in process.children() if "process_worker" in " ".join(one.cmdline())]
    return sorted(children, key=psutil.Process.create_time)


def require_same(folder: Path, other: Path) -> None:
    """The same candidates came to the same ends, with the same adapters."""
    files = sorted(folder.glob("trials/*/adapter/adapter_model.safetensors"))
    assert [file.relative_to(folder) for file in files] == sorted(
        file.relative_to(other) for file in other.glob("trials/*/adapter/adapter_model.safetensors")
    )
    for file in files:
        ours, theirs = load_file(file), load_file(other / file.relative_to(folder))
        largest = max(float(tensor.abs().max()) for tensor in ours.values())
        for name, tensor in ours.items():
            assert float((tensor - theirs[name]).abs().max()) <= TOLERANCE * largest, (file, name)
    mine, yours = (json.loads((one / "run.json").read_text()) for one in (folder, other))
    assert mine["status"] == yours["status"] == "completed"
    ends = [
        {trial["id"]: (trial["status"], trial["steps"]) for trial in one["trials"]}
        for one in (mine, yours)
    ]
    assert ends[0] == ends[1]


@pytest.fixture
def killed_at_first_score(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """SIGKILL for the oldest worker of this process as soon as a candidate in a folder was scored."""
    # Short turns, each kept: a run of seconds is one of hours in small.
    monkeypatch.setattr(turns, "TURN_SECONDS", 0.02)
    monkeypatch.setattr(WriteTimer, "due", lambda self: True)
    threads: list[threading.Thread] = []

    def after(folder: Path) -> None:
        def watch() -> None:
            while not over.is_set():
                if any(one["kind"] == "evaluated" and one["trial"] for one in events_of(folder)):
                    os.kill(workers_of(psutil.Process())[0].pid, signal.SIGKILL)
                    return
                time.sleep(0.01)

        threads.append(threading.Thread(target=watch))
        threads[-1].start()

    over = threading.Event()
    yield after
    over.set()
    for thread in threads:
        thread.join()


def test_two_workers_train_what_one_process_does_though_one_is_killed(
    world: World, loraloom: Door, tmp_path: Path, killed_at_first_score: Any
) -> None:
    words = words_of(world, tmp_path)
    answer = loraloom(*words, "--name", "alone")
    assert answer.code == 0, answer.err
    killed_at_first_score(tmp_path / "several")
    answer = loraloom(*words, "--name", "several", "--workers", 2)
    assert answer.code == 0, answer.err
    require_same(tmp_path / "alone", tmp_path / "several")
    notes = json.loads((tmp_path / "several" / "run.json").read_text())["notes"]
    assert [note for note in notes if "is lost" in note and "SIGKILL" in note]
    steps: dict[str, int] = {}
    for event in events_of(tmp_path / "several"):
        if event["kind"] == "step":
            steps[event["trial"]] = steps.get(event["trial"], 0) + 1
            assert event["step"] == steps[event["trial"]], "each step is written down once, in order"
    assert not workers_of(psutil.Process())


@pytest.fixture(scope="module")
def invited(world: World, tmp_path_factory: pytest.TempPathFactory) -> Invitation:
    """An invitation to a run, over copies of base and rows that a test may spoil."""
    from loraloom.config.decode import load_config

    home = tmp_path_factory.mktemp("invited")
    asked = {
        "model.name_or_path": str(copytree(world.llama, home / "base")),
        "data.train": copyfile(world.text, home / "rows.jsonl").as_posix(),
        "output_dir": str(home),
        "name": "run",
    }
    _, log = set_up(prepare(load_config(None, asked), race=True), "tune", lambda event: None)
    return invitation_to(log)


def spoilt(invitation: Invitation, **request: Any) -> Invitation:
    return Invitation(
        invitation.version, invitation.factory, {**invitation.request, **request}, invitation.cwd
    )


def test_a_worker_without_the_run_folder_or_with_another_device_does_not_join(
    invited: Invitation,
) -> None:
    with pytest.raises(StoreError, match="worker w1 cannot join: the run folder is not here"):
        join("w1", spoilt(invited, folder="/nowhere"))
    elsewhere = {**invited.request["device"], "kind": "cuda"}
    with pytest.raises(DeviceError, match="worker w1 cannot join: the run was planned for cuda"):
        join("w1", spoilt(invited, device=elsewhere))


def test_a_worker_with_another_base_or_other_rows_does_not_join(invited: Invitation) -> None:
    folder = Path(invited.request["folder"]).parent
    weights = folder / "base" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ModelError, match="worker w1 cannot join: its base model has other weights"):
        join("w1", invited)
    weights.write_bytes(whole)
    rows = (folder / "rows.jsonl").read_text()
    (folder / "rows.jsonl").write_text(rows.replace("cat", "dog", 1))
    with pytest.raises(DataError, match="worker w1 cannot join: it reads other rows"):
        join("w1", invited)
    (folder / "rows.jsonl").write_text(rows)
    assert join("w1", invited).obey([]).worker == "w1"
