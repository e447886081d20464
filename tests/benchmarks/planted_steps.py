"""Steps that go wrong, for processes that are to survive nothing of it. Each is told
what `isolate.Told` is."""

from __future__ import annotations

import os
import time
from typing import Any


def fine(told: Any) -> None:
    told.begins("first", 9.0)
    told.found("first", {"status": "done", "value": 1})


def crashes_in_a_part(told: Any) -> None:
    """The second of three parts takes the process with it."""
    for name in ("first", "second", "third"):
        if name in told.done:
            continue
        told.begins(name, 20.0)
        if name == "second":
            print("about to end", flush=True)
            os.abort()
        told.found(name, {"status": "done"})


def hangs_in_a_part(told: Any) -> None:
    for name in ("hangs", "after"):
        if name in told.done:
            continue
        told.begins(name, 2.0)
        if name == "hangs":
            time.sleep(600)
        told.found(name, {"status": "done"})


def hangs(told: Any) -> None:
    told.begins("first", 600.0)
    told.found("first", {"status": "done"})
    time.sleep(600)


def raises(told: Any) -> None:
    raise RuntimeError("this device is gone")


def starts_another_and_hangs(told: Any, file: str) -> None:
    """A command of its own that would write into a file after the step's end."""
    import subprocess

    subprocess.Popen(["sh", "-c", f"sleep 4; echo late > {file}"])
    time.sleep(600)


def needs_a_new_process(told: Any) -> None:
    """Works only where the process was not forked off a server, as where that server
    has touched the device."""
    import multiprocessing

    if multiprocessing.get_start_method(allow_none=True) != "spawn":
        raise RuntimeError(
            "Cannot re-initialize CUDA in forked subprocess. Use the 'spawn' start method"
        )
    told.begins("first", 9.0)
    told.found("first", {"status": "done"})
