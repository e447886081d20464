"""Lines that can be cut back to a mark, and a lock that ends with its process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloom.errors import RequestError, StoreError
from loraloom.records import Event
from loraloom.store import lock
from loraloom.store.folder import RunFolder
from loraloom.store.lines import Lines, Mark
from loraloom.store.lock import Lock
from loraloom.store.result import RunResult


def line(number: int) -> bytes:
    return json.dumps({"number": number}).encode()


def numbers(lines: Lines) -> list[int]:
    return [json.loads(one)["number"] for one in lines]


@given(before=st.integers(0, 5), after=st.integers(0, 5), torn=st.integers(0, 14), anew=st.booleans())
def test_what_follows_a_mark_can_be_forgotten(
    tmp_path_factory: pytest.TempPathFactory, before: int, after: int, torn: int, anew: bool
) -> None:
    path = tmp_path_factory.mktemp("lines") / "events.jsonl"
    lines = Lines(path)
    for number in range(before):
        lines.append(line(number))
    mark = lines.mark()
    for number in range(after):
        lines.append(line(100 + number))
    with path.open("ab") as file:
        file.write(line(999)[:torn])
    again = Lines(path) if anew else lines
    assert again.holds(mark)
    again.cut(mark)
    again.append(line(7))
    assert numbers(again) == [*range(before), 7]
    assert Lines(path).mark() == again.mark()


@given(torn=st.integers(0, 12))
def test_a_torn_line_costs_itself_alone(tmp_path_factory: pytest.TempPathFactory, torn: int) -> None:
    path = tmp_path_factory.mktemp("lines") / "events.jsonl"
    path.write_bytes(line(1) + b"\n" + line(2)[:torn])
    lines = Lines(path)
    lines.append(line(3))
    assert numbers(lines) == ([1, 2, 3] if torn == len(line(2)) else [1, 3])
    assert lines.mark() == Lines(path).mark()


def test_a_changed_or_shortened_file_no_longer_holds_a_mark(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    lines = Lines(path)
    assert lines.holds(Mark()) and lines.mark() == Mark()
    lines.append(line(1))
    mark = lines.mark()
    path.write_bytes(line(2) + b"\n")
    assert not Lines(path).holds(mark)
    path.write_bytes(line(1))
    assert not Lines(path).holds(mark)
    path.unlink()
    assert not Lines(path).holds(mark)


def test_one_lock_at_a_time(tmp_path: Path) -> None:
    first, second = Lock(tmp_path / "deep" / "lock"), Lock(tmp_path / "deep" / "lock")
    assert first.take() and first.take()
    assert not second.take()
    assert second.holder() == f"{os.getpid()} on {socket.gethostname()}"
    first.release()
    assert second.take()


@pytest.mark.parametrize("left", ["7 on node9\n", None], ids=["held by another", "ended by another"])
def test_a_run_that_another_has_taken_over_is_not_written_into(
    left: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a machine was cut off from a share for longer than its locks last."""
    monkeypatch.setattr(lock, "LOOK_SECONDS", 0.0)
    folder = RunFolder.create(tmp_path, "one")
    folder.lock()
    folder.append(Event("run_started"))
    path = folder.checkpoints / "lock"
    path.unlink()
    if left is not None:
        path.write_text(left)
    before = folder.events_path.read_bytes()
    result = RunResult("one", "tune", "running", "tiny", "causal_lm", "2025-01-01T00:00:00+00:00")
    for write in (lambda: folder.append(Event("note")), lambda: folder.write_result(result)):
        with pytest.raises(StoreError, match="another process has taken this run over") as caught:
            write()
        assert (left or "unknown").strip() in str(caught.value)
    assert folder.events_path.read_bytes() == before and not folder.result_path.exists()
    folder.unlock()


def test_a_process_that_is_killed_lets_go(tmp_path: Path) -> None:
    code = (
        "import sys, time; from loraloom.store.folder import RunFolder; folder = RunFolder(sys.argv[1]);"
        " folder.lock();print('held', flush=True); time.sleep(600)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    with pytest.raises(RequestError, match="being worked on by another process") as caught:
        RunFolder(tmp_path).lock()
    assert f"process {holder.pid} on {socket.gethostname()} holds it" in str(caught.value)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    folder = RunFolder(tmp_path)
    folder.lock()
    folder.unlock()
