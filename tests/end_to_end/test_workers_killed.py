"""SIGKILL for workers and the driver of a search, at random moments: nothing is lost."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from doorway import World
from kill_story import Story, require_gone
from nursery import Nursery
from test_several_workers import words_of

STEPS, EVALUATIONS = 48, 8
KILLS, SEEDS = 5, 12
"""So many kills in a story, and so many stories."""

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
        workers = [psutil.Process(pid) for pid in pids]
        assert len(workers) == 2
        driver.kill()
    require_gone(workers)


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
    story = Story(alone.nursery, alone.folder, [*alone.words, "--workers", 2], seed, KILLS)
    story.tell()
    record_property("kills", dict(story.killed))
    record_property("steps_done_again", story.again)
    assert story.again <= STEPS // EVALUATIONS
