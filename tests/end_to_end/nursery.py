"""A process that has everything imported, and forks one child for each command line: a
real process, there at once.

As a program it reads one JSON object a line ({commands, log, kill_after, kill_at, limits}) and answers
each with {codes, seconds}: the exit code of each child (or minus the number of the signal that ended
it), and the seconds that they had of a processor. Children are killed by that clock too, or once a file
has so many lines: on a busy machine they come just as far. From a test: `with Nursery() as nursery:
nursery.run(...)`.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

CHECKPOINT_EVERY_SECONDS = 0.1
"""Runs here last seconds: checkpoints have to come as often as they would in one of hours."""
LATER = 0.02
"""Seconds, at most, between the moment that was asked for and the kill."""


class Nursery:
    """The parent of the children, from the test's side.

    Args:
        program: module whose `main` the children call with their words. It is imported before they
            are born.
    """

    def __init__(self, program: str = "loraloom.cli.main") -> None:
        self.program = program

    def __enter__(self) -> Nursery:
        self.process = subprocess.Popen(
            [sys.executable, __file__, self.program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def run(
        self,
        *words: object,
        log: Path,
        kill_after: float | None = None,
        kill_at: tuple[Path, int] | None = None,
        limits: Mapping[str, int] | None = None,
    ) -> tuple[int, float]:
        """Run one command line to its end, or to the SIGKILL.

        Args:
            words: the command line.
            log: where its output goes.
            kill_after: kill it when it has had so many seconds of a processor.
            kill_at: kill it when this file has so many lines.
            limits: of `LIMITS`, by name.

        Returns:
            Exit code and seconds of a processor.
        """
        at = kill_at and (str(kill_at[0]), kill_at[1])
        answer = self._ask([words], log, kill_after=kill_after, kill_at=at, limits=dict(limits or {}))
        return answer["codes"][0], answer["seconds"]

    def run_with(self, *words: object, log: Path, limits: Mapping[str, int]) -> int:
        """Run one command line under limits of `LIMITS`; its exit code."""
        return self._ask([words], log, limits=limits)["codes"][0]

    def run_together(self, *commands: Sequence[object], log: Path) -> list[int]:
        """Run command lines at the same time; their exit codes."""
        return self._ask(commands, log)["codes"]

    def _ask(self, commands: Sequence[Sequence[object]], log: Path, **more: Any) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        asked = {
            "commands": [[str(word) for word in words] for words in commands],
            "log": str(log),
            **more,
        }
        print(json.dumps(asked), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())


def limit_files(most: int) -> None:
    """No file may grow beyond this: what a full disk looks like to a program."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def limit_memory(more: int) -> None:
    """In the first tick, no more memory than there was before it and this much more."""
    from loraloom.train.pack import PackTrainer

    tick = PackTrainer.tick

    def limited(trainer: PackTrainer) -> Any:
        PackTrainer.tick = tick
        before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + more, before[1]))
        try:
            return tick(trainer)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)

    PackTrainer.tick = limited


def limit_disk(calls: int) -> None:
    """SIGKILL in front of the so-manieth time that something is brought to the disk, renamed or
    removed."""
    done = 0

    def counted(call: Callable[..., None]) -> Callable[..., None]:
        def counting(*given: Any, **more: Any) -> None:
            nonlocal done
            done += 1
            if done == calls:
                os.kill(os.getpid(), signal.SIGKILL)
            call(*given, **more)

        return counting

    for name in ("fsync", "rename", "replace", "unlink", "rmdir"):
        setattr(os, name, counted(getattr(os, name)))


def move_to_host(number: int) -> None:
    """This is another machine: it has another name."""
    socket.gethostname = lambda: f"host-{number}"


LIMITS: Mapping[str, Callable[[int], None]] = {
    "disk": limit_disk,
    "host": move_to_host,
    "files": limit_files,
    "memory": limit_memory,
}


def child(words: list[str], log: str, limits: Mapping[str, int]) -> int:
    """What a child does: the command line, everything it says in a file."""
    from loraloom.pipeline import drive, obey, write_timer

    with Path(log).open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    write_timer.EVERY_SECONDS, write_timer.SHARE = CHECKPOINT_EVERY_SECONDS, 1.0 / drive.PART
    obey.LOOK_SECONDS = 0.0
    for name, value in limits.items():
        LIMITS[name](value)
    return importlib.import_module(sys.argv[1]).main(words)


def born(words: list[str], asked: Mapping[str, Any]) -> int:
    """Fork a child that runs a command line; its process id."""
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        code = child(words, asked["log"], asked.get("limits") or {})
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def has_come(pid: int, asked: Mapping[str, Any]) -> bool:
    """Whether the moment that was asked for is there."""
    if (seconds := asked.get("kill_after")) is not None:
        times = psutil.Process(pid).cpu_times()
        return times.user + times.system >= seconds
    path, lines = asked["kill_at"]
    return Path(path).is_file() and Path(path).read_bytes().count(b"\n") >= lines


def ended(pid: int, asked: Mapping[str, Any]) -> tuple[int, float]:
    """Wait for a child, kill it when its time has come; its exit code, and the seconds
    that it had of a processor."""
    moment = random.uniform(0, LATER)
    to_kill = asked.get("kill_after") is not None or asked.get("kill_at") is not None
    while True:
        found, status, used = os.wait4(pid, os.WNOHANG if to_kill else 0)
        if found:
            return os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime
        if has_come(pid, asked):
            # Waits for the disk take no time of the processor; so that they are hit
            # too, some time goes by.
            time.sleep(moment)
            os.kill(pid, signal.SIGKILL)
            to_kill = False
        else:
            time.sleep(0.002)


def serve() -> None:
    """Import what a tune needs, without computing anything: threads would not outlive a
    fork. Then answer."""
    import optuna.samplers
    import peft
    import plotly.graph_objects
    import scipy.stats
    import torch
    import transformers.models.llama.modeling_llama

    import loraloom.pipeline.train
    import loraloom.pipeline.tune

    assert all((optuna, peft, plotly, scipy, transformers, loraloom))
    importlib.import_module(sys.argv[1])
    torch.set_num_threads(1)
    for line in sys.stdin:
        asked = json.loads(line)
        pids = [born(words, asked) for words in asked["commands"]]
        ends = [ended(pid, asked) for pid in pids]
        print(
            json.dumps({"codes": [code for code, _ in ends], "seconds": sum(used for _, used in ends)}),
            flush=True,
        )


if __name__ == "__main__":
    serve()
