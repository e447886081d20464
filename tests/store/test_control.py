"""Commands to a run: written whole or not at all, read once each, refused where no run could obey."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from loraloom.errors import RequestError, StoreError
from loraloom.records import Event
from loraloom.store.control import (
    Asked,
    Command,
    append,
    changed_settings,
    check,
    commands,
    is_alive,
    new_uuid,
    read,
    require_alive,
)
from loraloom.store.folder import RunFolder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path, "one")


def command(verb: str, **more: Any) -> Command:
    return Command(new_uuid(), verb, **more)


GOOD = (
    command("prune", trial="t003"),
    command("stop"),
    command("clone", trial="t001", changes={"training.learning_rate": "2e-4", "adapter.r": 4}),
    command("clone", trial="t001", changes={"warm": True}),
    command("extend", changes={"trials": 4}),
    command("note", text="the second half looks noisy"),
)


def test_what_is_appended_is_read_back(folder: RunFolder) -> None:
    assert commands(folder) == []
    for one in GOOD:
        append(folder, one)
    assert commands(folder) == list(GOOD)
    assert all(json.loads(line)["uuid"] for line in folder.control_path.read_text().splitlines())


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (command("kill"), "one of prune, stop, clone, extend, note"),
        (command("prune"), "needs a trial"),
        (command("prune", trial="../t001"), "cannot be the name"),
        (command("prune", trial="t001", changes={"adapter.r": 4}), "changes nothing"),
        (command("stop", trial="t001"), "whole run"),
        (command("stop", text="now"), "takes no text"),
        (command("clone", trial="t001"), "its parent again"),
        (command("clone", trial="t001", changes={"adapter.rank": 4}), "did you mean `adapter.r`"),
        (command("clone", trial="t001", changes={"data.train": "other"}), "cannot change `data.train`"),
        (command("clone", trial="t001", changes={"training.seed": 7}), "cannot change `training.seed`"),
        (command("clone", trial="t001", changes={"adapter.r": 0}), "must be at least 1"),
        (command("clone", trial="t001", changes={"adapter.r": "auto"}), "needs a value"),
        (command("clone", trial="t001", changes={"warm": "yes"}), "true or false"),
        (command("extend"), "the number of candidates"),
        (command("extend", changes={"trials": 0}), "from 1 to"),
        (command("extend", changes={"trials": True}), "from 1 to"),
        (command("extend", changes={"trials": 2, "adapter.r": 4}), "the number of candidates"),
        (command("note", text="  "), "needs a text"),
        (command("note", text="red: \x1b[31m"), "cannot be shown"),
        (command("note", text="a" * 1_001), "at most 1000 characters"),
        (Command("x", "stop"), "no uuid"),
    ],
)
def test_what_no_run_could_obey_is_refused(folder: RunFolder, bad: Command, words: str) -> None:
    with pytest.raises(RequestError) as caught:
        append(folder, bad)
    assert words in str(caught.value)
    assert "next: " in str(caught.value)
    assert not folder.control_path.exists()


def test_changes_come_in_the_types_of_their_keys() -> None:
    changes = {
        "training.learning_rate": "2e-4",
        "adapter.r": "16",
        "adapter.target_modules": "q_proj,v_proj",
    }
    assert changed_settings(command("clone", trial="t000", changes=changes)) == {
        "training.learning_rate": 2e-4,
        "adapter.r": 16,
        "adapter.target_modules": ("q_proj", "v_proj"),
    }


def test_foreign_lines_are_passed_over_and_counted(folder: RunFolder) -> None:
    append(folder, GOOD[0])
    with folder.control_path.open("ab") as file:
        file.write(b'not JSON\n[1, 2]\n{"verb": "stop"}\n{"uuid": 5, "verb": "stop"}\n\n')
        file.write(b'{"uuid": "0123456789", "verb": "stop", "changes": [1]}\n\xff\xfe\n')
    append(folder, GOOD[1])
    assert read(folder) == Asked((GOOD[0], GOOD[1]), (2, 3, 4, 5, 7, 8))


def test_a_torn_last_line_is_left_until_it_is_whole(folder: RunFolder) -> None:
    append(folder, GOOD[0])
    line = json.dumps({"uuid": "0123456789", "verb": "stop"}).encode()
    with folder.control_path.open("ab") as file:
        file.write(line[:9])
    assert read(folder) == Asked((GOOD[0],))
    with folder.control_path.open("ab") as file:
        file.write(line[9:])
    assert read(folder) == Asked((GOOD[0],)), "as long as its end is missing it may go on"
    append(folder, GOOD[1])
    assert commands(folder) == [GOOD[0], Command("0123456789", "stop"), GOOD[1]]


def test_a_uuid_counts_once(folder: RunFolder) -> None:
    for one in (GOOD[0], GOOD[1], GOOD[0], Command(GOOD[1].uuid, "note", text="again")):
        append(folder, one)
    assert commands(folder) == [GOOD[0], GOOD[1]]


def test_a_full_disk_leaves_nothing_of_the_command(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(folder, GOOD[0])
    before = folder.control_path.read_bytes()
    write = os.write

    def full(handle: int, content: bytes) -> int:
        if len(content) > 10:
            return write(handle, content[:10])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(StoreError, match="the disk is full"):
            append(folder, Command(new_uuid(), "note", text="a" * 5))
    assert folder.control_path.read_bytes().startswith(before)
    append(folder, GOOD[1])
    assert commands(folder) == [GOOD[0], GOOD[1]]


def test_many_write_at_once(folder: RunFolder) -> None:
    def write() -> None:
        for _ in range(20):
            append(folder, Command(new_uuid(), "note", text="a" * 900))

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = read(folder)
    assert (len(found.commands), found.unreadable) == (80, ())


def test_a_run_lives_as_long_as_its_process(folder: RunFolder) -> None:
    assert not is_alive(folder), "nobody ever worked on it"
    code = (
        "import sys, time; from loraloom.store.folder import RunFolder; folder = RunFolder(sys.argv[1]);"
        " folder.lock();print('held', flush=True); time.sleep(600)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(folder.path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    assert is_alive(RunFolder(folder.path))
    require_alive(folder)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert not is_alive(folder)
    folder.lock()
    assert is_alive(folder) and is_alive(RunFolder(folder.path)), "also from within the same process"
    folder.unlock()


def test_who_asks_of_a_dead_run_is_told_how_it_goes_on(folder: RunFolder) -> None:
    folder.append(Event("run_started", data={"verb": "train"}))
    with pytest.raises(RequestError, match="no process works on run `one`") as caught:
        require_alive(folder)
    assert f"loraloom train --resume {folder.path}" in str(caught.value)
    folder.append(Event("run_finished", data={"status": "completed"}))
    with pytest.raises(RequestError, match="run `one` is finished"):
        require_alive(folder)


@pytest.mark.parametrize("good", GOOD, ids=lambda one: one.verb)
def test_what_a_run_obeys_is_let_through(good: Command) -> None:
    check(good)
