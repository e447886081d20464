"""A step in a process of its own: with a limit, with its last words, and begun again
after a part of it that went wrong.

A step is made of parts. It tells of each when it begins and what it found, so that what was measured
before a crash is kept. A part that crashes the process, breaks the device for it, or hangs, is written
down as failed or timed out, and the step is begun anew without it.

Processes are forked off a server that has the large libraries loaded and has never touched the device.
Where a library touched it all the same, the first step says so, and wholly new processes are used from
then on.
"""

from __future__ import annotations

import faulthandler
import importlib
import multiprocessing
import os
import re
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LINES = 12
"""Last lines that are kept of what a process said."""
AGAIN_SECONDS = 8.0
"""With less than this left, a step is not begun again."""
LAST_WORDS_SECONDS = 1.5
"""So long before its limit a process is made to say where it is."""
FORKED = "re-initialize CUDA in forked"


@dataclass
class Ending:
    """How a step ended, and what its parts found, by name."""

    status: str
    why: list[str] = field(default_factory=list[str])
    parts: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])

    @property
    def bad(self) -> list[str]:
        """Parts that failed or were timed out."""
        return [name for name, part in self.parts.items() if part["status"] in ("failed", "timed out")]


@dataclass(frozen=True)
class Work:
    """What a process is to do: `function(told, *arguments)` of a module, both by name."""

    module: str
    function: str
    arguments: tuple[Any, ...] = ()


class Isolation:
    """Runs steps.

    Args:
        preload: modules that the server loads; those that are not there are left out.
        heard: called whenever something was told, with the step as it stands.
    """

    def __init__(
        self, preload: Sequence[str] = (), heard: Callable[[Ending], None] = lambda _: None
    ) -> None:
        self.heard = heard
        methods = multiprocessing.get_all_start_methods()
        self._context: Any = multiprocessing.get_context(
            "forkserver" if "forkserver" in methods else "spawn"
        )
        if "forkserver" in methods:
            self._context.set_forkserver_preload(list(preload))

    def run(self, work: Work, limit: float) -> Ending:
        """Run a step for at most `limit` seconds."""
        ends_at, ending = time.monotonic() + limit, Ending("running")
        while True:
            current = self._once(work, ends_at, ending)
            if (
                ending.status == "failed"
                and any(FORKED in line for line in ending.why)
                and not ending.parts
            ):
                self._context = multiprocessing.get_context("spawn")
            elif current is not None:
                ending.parts[current] = {"status": ending.status, "why": ending.why}
                self.heard(ending)
            elif ending.status != "again":
                break
            if ends_at - time.monotonic() < AGAIN_SECONDS:
                break
            ending.status, ending.why = "running", []
        if ending.status == "done" and ending.bad:
            ending.status, ending.why = "failed", [f"in part: {name}" for name in ending.bad]
        return ending

    def _once(self, work: Work, ends_at: float, ending: Ending) -> str | None:
        """One process; gives the part in which it ended before its time."""
        with tempfile.TemporaryDirectory(prefix="gpu-step-") as folder:
            log = Path(folder) / "log"
            reader, writer = self._context.Pipe(duplex=False)
            limit = ends_at - time.monotonic()
            process = self._context.Process(
                target=_child, args=(work, tuple(ending.parts), limit, writer, str(log))
            )
            process.start()
            writer.close()
            try:
                current, over = self._listen(reader, process, ends_at, ending)
            finally:  # also where a person has had enough: it would not be told
                _end(process)
                reader.close()
            if over:
                ending.status, ending.why = "timed out", last_lines(log)
            elif process.exitcode == 0:
                ending.status = "done"
            else:
                ending.status, ending.why = "failed", [*last_lines(log), _signal_of(process.exitcode)]
        return current

    def _listen(
        self, reader: Any, process: Any, ends_at: float, ending: Ending
    ) -> tuple[str | None, bool]:
        """Take down what is told until the process ends or its time is over: the part
        that it is in, and whether it is."""
        current, until = None, ends_at
        while (left := until - time.monotonic()) > 0:
            if reader.poll(min(left, 0.2)):
                try:
                    word, name, value = reader.recv()
                except (EOFError, OSError):
                    process.join(max(0.0, min(5.0, until - time.monotonic())))
                    return current, False
                if word == "begins":
                    current, until = name, min(ends_at, time.monotonic() + value)
                else:
                    ending.parts[name] = value
                    current, until = None, ends_at
                    self.heard(ending)
            elif not process.is_alive() and not reader.poll(0):
                return current, False
        return current, True


def _child(work: Work, done: tuple[str, ...], limit: float, writer: Any, log: str) -> None:
    """What the process does. It leaves without cleaning up: a device that is broken may hang on that."""
    with suppress(OSError, AttributeError):
        os.setsid()  # so that what it starts ends with it
    with open(log, "wb", buffering=0) as file:  # noqa: PTH123 a descriptor that stays
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    # a test may have put another in its place
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    faulthandler.enable(sys.stderr)
    faulthandler.dump_traceback_later(max(0.1, limit - LAST_WORDS_SECONDS), file=sys.stderr)
    code = 0
    try:
        importlib.import_module(work.module).__dict__[work.function](
            Told(writer, done, limit), *work.arguments
        )
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    writer.close()
    os._exit(code)


@dataclass
class Told:
    """The process's side of the pipe.

    Attributes:
        done: parts that an earlier process has dealt with.
        limit: seconds from the start of the process.
    """

    writer: Any
    done: tuple[str, ...]
    limit: float
    started: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        return self.limit - (time.monotonic() - self.started)

    def begins(self, part: str, limit: float) -> None:
        faulthandler.dump_traceback_later(
            max(0.1, min(limit, self.left) - LAST_WORDS_SECONDS), file=sys.stderr
        )
        self.writer.send(("begins", part, limit))

    def found(self, part: str, record: dict[str, Any]) -> None:
        self.writer.send(("found", part, record))


def _end(process: Any) -> None:
    """Let the process and what it started be gone; one that cannot be killed is left behind."""
    if process.is_alive() or process.exitcode is None:
        for kill in (lambda: os.killpg(process.pid, signal.SIGKILL), process.kill):
            with suppress(OSError, AttributeError):
                kill()
        process.join(5.0)


def _signal_of(code: int | None) -> str:
    if code is None:
        return "the process could not be ended"
    return f"exit code {code}" if code > 0 else f"ended by {signal.Signals(-code).name}"


def last_lines(log: Path, count: int = LINES) -> list[str]:
    """The last lines of a file, without the folders of this machine."""
    try:
        text = log.read_text(errors="replace")
    except OSError:
        return []
    return tidy(text.splitlines()[-count:])


def tidy(lines: Sequence[str]) -> list[str]:
    """Lines without the folders of this machine, and not endless."""
    found = [
        re.sub(r"[\w./~+-]*/(?:site|dist)-packages/", "", line.replace(f"{ROOT}/", "")) for line in lines
    ]
    home = str(Path.home())
    return [line.rstrip().replace(home, "~")[:300] for line in found if line.strip()]
