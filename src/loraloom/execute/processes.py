"""Workers in processes of this host, each on a device or on cores of its own.

A process is started anew, never forked, and hears of nothing but its pipe. It ends when the pipe does:
when the driver closes it, and when the driver is gone, however it went. State passes between workers
only through files of the run folder.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from multiprocessing.connection import Connection, wait
from tempfile import TemporaryFile
from typing import IO

from loraloom.errors import RunError
from loraloom.execute import Joined, Lost
from loraloom.execute.host import Invitation
from loraloom.facts.gpu_path import VISIBLE, name_of_gpu
from loraloom.train.orders import Order, Report

VAIN_STARTS = 3
"""So many processes of a place, one after the other, that end before they have done one turn: no other
is started there."""
FAREWELL_SECONDS = 5.0
"""What a process has to end once its pipe is closed; it is killed after that."""
LAST_WORDS = 2000
"""Bytes of what a process wrote at last that are looked at when it is lost."""


@dataclass(frozen=True)
class Place:
    """What one worker has to itself.

    Attributes:
        gpu: as torch numbers those that it sees here; None for a worker on cores.
        cores: that it may run on; empty for all.
        threads: that it computes with; None for as many as torch likes.
    """

    gpu: int | None = None
    cores: tuple[int, ...] = ()
    threads: int | None = None

    @property
    def words(self) -> str:
        """ "cuda:1", "core 3", "cores 0-3"."""
        if self.gpu is not None:
            return f"cuda:{self.gpu}"
        if not self.cores:
            return "the processor"
        first, last = self.cores[0], self.cores[-1]
        whole = len(self.cores) == last - first + 1
        listed = f"{first}-{last}" if whole else ", ".join(map(str, self.cores))
        return f"core {first}" if len(self.cores) == 1 else f"cores {listed}"

    @property
    def environment(self) -> Mapping[str, str]:
        """What libraries read before they look for devices and cores."""
        own = {} if self.gpu is None else {VISIBLE: name_of_gpu(self.gpu)}
        if self.threads:
            own |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(self.threads))
        return own


@dataclass(frozen=True)
class Failed:
    """What a worker says instead of a report, or of having joined.

    Attributes:
        traceback: where it happened, as text.
    """

    error: BaseException
    traceback: str


class WorkerTracebackError(Exception):
    """The cause of an error of a worker, for whoever looks at its traceback here."""


class Process:
    """One worker process as the driver sees it.

    Attributes:
        joined: whether it has said so.
        reports: turns that it has done.
    """

    def __init__(self, name: str, place: Place, invitation: Invitation) -> None:
        self.name, self.place = name, place
        self.joined, self.reports = False, 0
        ours, theirs = socket.socketpair()
        self._errors: IO[bytes] = TemporaryFile()  # noqa: SIM115  (as long as the process)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "loraloom.execute.process_worker", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=self._errors,
                stderr=self._errors,
                env={**os.environ, "PYTHONPATH": _search_path(), **self.place.environment},
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is for the driver alone
            )
        self.pipe = Connection(ours.detach())
        self.send((name, self.place.cores, invitation))

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, message: object) -> None:
        """To one that is gone nothing is sent: its pipe tells that it is."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send(message)

    def end(self) -> str:
        """Let it go at once; how it ended, in words."""
        self.pipe.close()
        try:
            code = self._process.wait(FAREWELL_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        said = self._last_words()
        self._errors.close()
        how = f"ended with code {code}" if code >= 0 else f"was ended by {_signal_name(-code)}"
        return f"process {self._process.pid} {how}" + (f" and said: {said}" if said else "")

    def _last_words(self) -> str:
        """The last line that it wrote."""
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - LAST_WORDS))
        lines = self._errors.read().decode("utf-8", "replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


class Processes:
    """An `Executor` with one process for each place. A process that dies is lost at once, and another is
    started in its place under a new name."""

    several = True

    def __init__(self, invitation: Invitation, places: Sequence[Place]) -> None:
        self._invitation = invitation
        self._names = count()
        self._in_vain = Counter[Place]()
        self._alive: dict[str, Process] = {}
        for place in places:
            self._start(place)

    @property
    def coming(self) -> bool:
        return any(not process.joined for process in self._alive.values())

    def workers(self) -> Sequence[str]:
        return [name for name, process in self._alive.items() if process.joined]

    def place_of(self, worker: str) -> str:
        return self._alive[worker].place.words if worker in self._alive else ""

    def processes(self) -> Mapping[str, int]:
        """Number of each worker's process, of those on their way too."""
        return {name: process.pid for name, process in self._alive.items()}

    def send(self, worker: str, orders: Sequence[Order]) -> None:
        if worker in self._alive:  # else `next` has told that it is lost
            self._alive[worker].send(list(orders))

    def next(self, timeout: float | None = None) -> Report | Lost | Joined | None:
        pipes = {process.pipe: process for process in self._alive.values()}
        ready = wait(list(pipes), timeout)
        if not ready:
            return None
        # The one that was heard last is heard again last: none waits for ever behind the others.
        process = pipes[ready[0]]  # type: ignore[index]
        self._alive[process.name] = self._alive.pop(process.name)
        try:
            said = process.pipe.recv()
        except (EOFError, OSError):
            return self._lose(process)
        match said:
            case Report():
                process.reports += 1
                self._in_vain[process.place] = 0
                return said
            case Failed():
                raise said.error from WorkerTracebackError(f"in {process.name}:\n{said.traceback}")
            case _:
                process.joined = True
                return Joined(process.name)

    def close(self) -> None:
        for process in self._alive.values():
            process.pipe.close()
        for process in self._alive.values():
            process.end()
        self._alive = {}

    def _start(self, place: Place) -> None:
        name = f"w{next(self._names)}"
        self._alive[name] = Process(name, place, self._invitation)

    def _lose(self, process: Process) -> Lost:
        """Start another in its place.

        Raises:
            RunError: it is one of many that came to nothing, and no other worker is left.
        """
        del self._alive[process.name]
        reason, place = process.end(), process.place
        if not process.reports:
            self._in_vain[place] += 1
        if self._in_vain[place] < VAIN_STARTS:
            self._start(place)
            return Lost(process.name, reason)
        reason += f"; on {place.words} {VAIN_STARTS} ended like this before they had done anything"
        if self._alive:
            return Lost(process.name, f"{reason}: no other is started there")
        raise RunError(
            "no worker stays alive",
            got=reason,
            next="see what ends them (memory?); the run goes on from its last checkpoint with --resume",
        )


def _search_path() -> str:
    """Where this process finds modules: its workers are to run the same code."""
    return os.pathsep.join(path for path in sys.path if path)


def _signal_name(number: int) -> str:
    with suppress(ValueError):
        return f"{signal.Signals(number).name}"
    return f"signal {number}"
