"""Stories of kills: a search that is killed, and gone on with, until it ends by itself; and how many
steps its candidates had to do again."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, zip_longest
from pathlib import Path
from typing import Any

import psutil
from nursery import Nursery
from test_several_workers import events_of, require_same, workers_of

LINES = (1, 60)
"""So many events lie between one kill and the next."""
PROCESSES = {"worker": 0.75, "driver": 0.25}
"""Share of each kind of victim where workers are processes of this host."""

Kill = Callable[[random.Random, psutil.Process], bool]
"""Kill one of what a driver has; False where nobody was there."""


def kill_worker(rng: random.Random, driver: psutil.Process) -> bool:
    workers = workers_of(driver)
    if workers:
        rng.choice(workers).kill()
    return bool(workers)


def require_gone(processes: Sequence[psutil.Process]) -> None:
    """All of these end, and soon."""
    _, alive = psutil.wait_procs(processes, timeout=120)
    assert not alive


class Life:
    """One driver, in a child of the nursery, from its start to its end."""

    def __init__(
        self,
        nursery: Nursery,
        words: Sequence[object],
        log: Path,
        limits: Mapping[str, int] | None = None,
    ) -> None:
        self.nursery, self.code, self._limits = nursery, 0, limits
        self._thread = threading.Thread(target=self._live, args=(words, log))
        self._thread.start()

    def _live(self, words: Sequence[object], log: Path) -> None:
        self.code, _ = self.nursery.run(*words, log=log, limits=self._limits)

    @property
    def is_over(self) -> bool:
        return not self._thread.is_alive()

    def driver(self) -> psutil.Process | None:
        return next(iter(psutil.Process(self.nursery.process.pid).children()), None)

    def end(self) -> int:
        self._thread.join()
        return self.code


class Redone:
    """Steps that candidates did again, as events tell. A driver that goes on cuts off what came after
    its last checkpoint, so that it is looked at before.

    Attributes:
        most: of any candidate after any kill.
    """

    def __init__(self) -> None:
        self.most = 0
        self._reached = Counter[str]()
        self._before: list[dict[str, Any]] = []

    def driver_died(self, folder: Path) -> None:
        """Remember how far everybody was."""
        self._before = events_of(folder)
        for event in self._before:
            if event["kind"] == "step":
                trial = event["trial"]
                self._reached[trial] = max(self._reached[trial], event["step"])

    def lived(self, folder: Path) -> None:
        """A driver has ended. Each step stands there once, in order."""
        steps = Counter[str]()
        is_new = False
        for event, old in zip_longest(events_of(folder), self._before):
            if event is None:
                break
            is_new = is_new or event != old
            trial, kind = event["trial"], event["kind"]
            if kind == "step":
                steps[trial] += 1
                assert event["step"] == steps[trial]
            elif kind in ("running", "trial_started"):
                here = event["step"] or 0
                before = self._reached.pop(trial, 0) if is_new else 0
                self.most = max(self.most, before - here, steps[trial] - here)


@dataclass
class Story:
    """Searches that are killed so often.

    Attributes:
        alone: folder of the same search in one process, which nobody killed; the others are beside it.
        words: ask for the search.
        kills: so many in all.
        victims: share of each kind.
        ways: how one of a kind is killed, but for the driver.
        workers: of a driver.
    """

    nursery: Nursery
    alone: Path
    words: Sequence[object]
    seed: int
    kills: int = 5
    victims: Mapping[str, float] = field(default_factory=lambda: PROCESSES)
    ways: Mapping[str, Kill] = field(default_factory=lambda: {"worker": kill_worker})
    workers: Callable[[psutil.Process], list[psutil.Process]] = workers_of
    killed: Counter[str] = field(default_factory=Counter[str])
    again: int = 0

    def tell(self) -> None:
        """One search after the other until all kills are done; nothing of any is lost."""
        rng = random.Random(self.seed)
        for number in count():
            folder = self.alone.with_name(f"killed-{self.seed}-{number}")
            redone = Redone()
            self._until_done(folder, rng, redone)
            require_same(self.alone, folder)
            self.again = max(self.again, redone.most)
            done = f"{dict(self.killed)}, at most {self.again} steps again"
            print(f"seed {self.seed}, run {number}: {done}", flush=True)
            if self.killed.total() >= self.kills:
                return

    def _until_done(self, folder: Path, rng: random.Random, redone: Redone) -> None:
        """One search that is gone on with until it ends by itself."""
        log = folder.with_suffix(".log")
        while True:
            life = Life(self.nursery, [*self.words, "--name", folder.name], log)
            while not life.is_over:
                await_lines(life, folder, rng.randrange(*LINES))
                if self.killed.total() < self.kills and (killed := self._kill(life, rng)):
                    self.killed[killed] += 1
            code = life.end()
            redone.lived(folder)
            if code != -signal.SIGKILL:
                assert code == 0, log.read_text()
                return
            redone.driver_died(folder)

    def _kill(self, life: Life, rng: random.Random) -> str | None:
        """Kill somebody; who it was, None where nobody was there."""
        try:
            driver = life.driver()
            workers = self.workers(driver) if driver else []
            if driver is None or not workers:
                return None
            (kind,) = rng.choices(list(self.victims), list(self.victims.values()))
            if kind != "driver":
                return kind if self.ways[kind](rng, driver) else None
            os.kill(driver.pid, signal.SIGKILL)
            life.end()
            require_gone(workers)
        except (psutil.NoSuchProcess, ProcessLookupError):
            return None
        return "driver"


def await_lines(life: Life, folder: Path, lines: int) -> None:
    """Until so many events more were written, or the driver has ended."""
    path = folder / "events.jsonl"
    before, more = None, 0
    while not life.is_over and more < lines:
        now = path.read_bytes().count(b"\n") if path.is_file() else 0
        more += max(0, now - before) if before is not None else 0
        before = now
        time.sleep(0.01)
