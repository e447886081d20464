"""SIGKILL for workers and the driver of a search, at random moments: nothing is lost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import pytest
from doorway import World
from nursery import Nursery
from test_several_workers import events_of, require_same, words_of, workers_of

STEPS, EVALUATIONS = 48, 8
KILLS, SEEDS = 5, 12
"""So many kills in a story, and so many stories."""
LINES = (1, 60)
"""So many events lie between one kill and the next."""
DRIVERS = 0.25
"""Share of the kills that are the driver's; all others are a worker's."""

ORPHANAGE = """
import sys, time
sys.path[:0] = [{contracts!r}]
from contract_worker import LIGHT_FACTORY
from loraloom.execute.host import invite
from loraloom.execute.processes import Place, Processes
executor = Processes(invite(LIGHT_FACTORY, {{}}), [Place(threads=1)] * 2)
executor.next(), executor.next()
executor.send("w0", ["waits"])
print(*executor.processes().values(), flush=True)
time.sleep(600)
"""


def test_a_driver_that_is_killed_leaves_no_worker() -> None:
    """One of them waits for orders, one is in the middle of its turn."""
    contracts = str(Path(__file__).resolve().parents[1] / "contracts")
    words = [sys.executable, "-c", ORPHANAGE.format(contracts=contracts)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        pids = [int(word) for word in driver.stdout.readline().split()]
        assert len(pids) == 2 and all(map(psutil.pid_exists, pids))
        driver.kill()
    require_gone(pids)


def require_gone(pids: list[int]) -> None:
    """All of these processes end, and soon."""
    until = time.monotonic() + 60
    while time.monotonic() < until and any(map(psutil.pid_exists, pids)):
        time.sleep(0.01)
    assert not [pid for pid in pids if psutil.pid_exists(pid)]


class Life:
    """One driver, in a child of the nursery, from its start to its end."""

    def __init__(self, nursery: Nursery, words: list[object], log: Path) -> None:
        self.nursery, self.code = nursery, 0
        self._thread = threading.Thread(target=self._live, args=(words, log))
        self._thread.start()

    def _live(self, words: list[object], log: Path) -> None:
        self.code, _ = self.nursery.run(*words, log=log)

    @property
    def is_over(self) -> bool:
        return not self._thread.is_alive()

    def driver(self) -> psutil.Process | None:
        return next(iter(psutil.Process(self.nursery.process.pid).children()), None)

    def kill(self, rng: random.Random) -> str | None:
        """Kill the driver or one of its workers; which of the two, None where nobody was there."""
        try:
            driver = self.driver()
            workers = workers_of(driver) if driver else []
            if driver is None or not workers:
                return None
            if rng.random() >= DRIVERS:
                os.kill(rng.choice(workers).pid, signal.SIGKILL)
                return "worker"
            driver.kill()
            self._thread.join()
            require_gone([worker.pid for worker in workers])
        except (psutil.NoSuchProcess, ProcessLookupError):
            return None
        return "driver"

    def end(self) -> int:
        self._thread.join()
        return self.code


def await_lines(life: Life, folder: Path, lines: int) -> None:
    """Until so many events more were written, or the driver has ended."""
    path = folder / "events.jsonl"
    before, more = None, 0
    while not life.is_over and more < lines:
        now = path.read_bytes().count(b"\n") if path.is_file() else 0
        more += max(0, now - before) if before is not None else 0
        before = now
        time.sleep(0.01)


def killed_until_done(
    nursery: Nursery, words: list[object], folder: Path, rng: random.Random, most: int
) -> Counter[str]:
    """One search that is gone on with until it ends by itself; who was killed how often."""
    kills = Counter[str]()
    log = folder.with_suffix(".log")
    while True:
        life = Life(nursery, words, log)
        while not life.is_over:
            await_lines(life, folder, rng.randrange(*LINES))
            if sum(kills.values()) < most and (killed := life.kill(rng)):
                kills[killed] += 1
        code = life.end()
        if code != -signal.SIGKILL:
            assert code == 0, log.read_text()
            return kills


def require_little_done_again(folder: Path) -> int:
    """Each step stands there once, in order; of those, most that a candidate had to go again."""
    steps, most = Counter[str](), 0
    for event in events_of(folder):
        trial = event["trial"]
        if event["kind"] == "step":
            steps[trial] += 1
            assert event["step"] == steps[trial]
        elif event["kind"] == "running":
            most = max(most, steps[trial] - event["step"])
    return most


@dataclass(frozen=True)
class Alone:
    """The search in one process, which nobody killed, and how it is asked for."""

    nursery: Nursery
    words: list[object]
    folder: Path


@pytest.fixture(scope="module")
def alone(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alone]:
    root = tmp_path_factory.mktemp("kills")
    # In other company sums have another order, and AdamW makes much of little where gradients are small:
    # at these rates it stays far below the tolerance.
    space = "search.space={training.learning_rate: {low: 1.0e-4, high: 1.0e-3, log: true}}"
    words = [*words_of(world, root, trials=6, steps=STEPS), "--set", space]
    with Nursery() as nursery:
        code, _ = nursery.run(*words, "--name", "alone", log=root / "alone.log")
        assert code == 0, (root / "alone.log").read_text()
        yield Alone(nursery, words, root / "alone")


@pytest.mark.long
@pytest.mark.parametrize("seed", range(SEEDS))
def test_sixty_kills_of_workers_and_drivers_lose_nothing(
    alone: Alone, seed: int, record_property: Callable[[str, Any], None]
) -> None:
    """Sixty in all stories together."""
    rng, kills, again = random.Random(seed), Counter[str](), 0
    for number in count():
        folder = alone.folder.with_name(f"killed-{seed}-{number}")
        words = [*alone.words, "--name", folder.name, "--workers", 2]
        kills += killed_until_done(alone.nursery, words, folder, rng, KILLS - kills.total())
        require_same(alone.folder, folder)
        again = max(again, require_little_done_again(folder))
        print(f"seed {seed}, run {number}: {dict(kills)}, at most {again} steps again", flush=True)
        if kills.total() >= KILLS:
            break
    record_property("kills", dict(kills))
    record_property("steps_done_again", again)
    # A turn ends at each evaluation, and what it came to is kept: that is the interval here.
    assert again <= STEPS // EVALUATIONS
