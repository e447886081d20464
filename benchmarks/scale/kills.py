"""SIGKILL at random moments: whether anything of a search is lost, and how much of it is done again.

    python benchmarks/scale/kills.py           # twelve stories, a quarter of an hour; writes kills.json
    python benchmarks/scale/kills.py --stories 3 --first 12 --drivers 0.8    # more, the driver mostly
    python benchmarks/scale/kills.py --ray 1   # one more on a Ray cluster of two nodes of this machine
    python benchmarks/scale/kills.py --show    # the committed result

A story is a search on two workers, killed five times: a worker, the driver, on Ray a whole node. After
the driver's death the same command goes on with the run; a story that ends before its last kill begins
again. At its end every adapter is held against those of the same search in one process which nobody
killed. The stories are those of tests/end_to_end/kill_story.py; their runs last seconds, so that
candidates are kept as often as in runs of hours, whatever share of the time that is.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

HERE = Path(__file__).resolve().parent
RESULT, TESTS = HERE / "kills.json", HERE.parents[1] / "tests"
sys.path[:0] = [str(TESTS / "end_to_end"), str(TESTS / "execute"), str(HERE.parent / "packed")]

TRIALS, STEPS, EVALUATIONS = 6, 48, 8
STORIES, KILLS = 12, 5
DRIVERS = 0.25
SPACE = "search.space={training.learning_rate: {low: 1.0e-4, high: 1.0e-3, log: true}}"
"""At these rates a last digit that differs, as sums are taken in other company, stays one."""

Tell = Callable[[int], Any]
"""Tells the story of a seed and returns it."""


@contextmanager
def searches(home: Path, **more: Any) -> Generator[Tell]:
    """Stories of one search.

    Args:
        more: for each `Story`; "words" are those that ask for workers.
    """
    from bases import save_llama
    from doorway import write_rows
    from kill_story import Story
    from nursery import Nursery
    from test_several_workers import words_of

    sentences = [
        " ".join(parts)
        for parts in itertools.product(
            ("the cat", "a dog", "the bird", "the soup", "a cake", "the bread"),
            ("sleeps", "waits", "stands", "turns"),
            ("in the house", "by the door", "under the tree"),
        )
    ]
    world: Any = SimpleNamespace(
        llama=str(save_llama(home / "llama", sentences)),
        text=write_rows(home / "rows.jsonl", [{"text": one} for one in sentences]),
    )
    words = [*words_of(world, home, trials=TRIALS, steps=STEPS), "--set", SPACE]
    asked = [*words, *more.pop("words")]
    with Nursery() as nursery:
        code, _ = nursery.run(*words, "--name", "alone", log=home / "alone.log")
        if code:
            raise SystemExit((home / "alone.log").read_text())

        def tell(seed: int) -> Story:
            story = Story(nursery, home / "alone", asked, seed, KILLS, **more)
            story.tell()
            return story

        yield tell


@contextmanager
def on_processes(home: Path, drivers: float) -> Generator[Tell]:
    """Two processes of this machine; this share of the kills is the driver's."""
    victims = {"worker": 1 - drivers, "driver": drivers}
    with searches(home, words=["--workers", 2], victims=victims) as tell:
        yield tell


@contextmanager
def on_ray(home: Path, drivers: float) -> Generator[Tell]:
    """Two nodes of this machine; one that is killed is followed by another. Of the kills that are not
    the driver's half are a node's."""
    from ray_nodes import ENVIRONMENT, Nodes, workers

    os.environ.update(ENVIRONMENT, PYTHONPATH=os.pathsep.join(path for path in sys.path if path))
    nodes = Nodes()
    os.environ["RAY_ADDRESS"] = nodes.address
    extra = [nodes.add()]

    def kill_worker(rng: random.Random, _: Any) -> bool:
        found = workers()
        if found:
            rng.choice(found).kill()
        return bool(found)

    def kill_node(*_: Any) -> bool:
        nodes.kill(extra.pop())
        extra.append(nodes.add())
        return True

    more: dict[str, Any] = {
        "words": ["--set", "execute=ray", "--workers", 2],
        "victims": {"worker": (1 - drivers) / 2, "node": (1 - drivers) / 2, "driver": drivers},
        "ways": {"worker": kill_worker, "node": kill_node},
        "workers": lambda driver: workers(),
    }
    try:
        with searches(home, **more) as tell:
            yield tell
    finally:
        nodes.close()


def measured(where: Any, drivers: float, seeds: range, known: list[dict[str, Any]]) -> None:
    """Tell these stories, and note each as soon as it is over."""
    from machine import describe, versions

    with tempfile.TemporaryDirectory() as place, where(Path(place), drivers) as tell:
        for seed in seeds:
            story = tell(seed)
            told = {
                "executor": where.__name__.removeprefix("on_"),
                "seed": seed,
                "killed": dict(story.killed),
                "steps_again": story.again,
            }
            known[:] = [*(one for one in known if not _same(one, told)), told]
            result = {
                "steps": STEPS,
                "interval": STEPS // EVALUATIONS,
                "stories": known,
                "machine": describe("cpu"),
                "versions": versions(),
            }
            RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(one[key] == other[key] for key in ("executor", "seed"))


def table(result: dict[str, Any]) -> str:
    """A line for each executor."""
    lines = [f"{'on':<12}{'stories':>8}{'workers':>9}{'nodes':>7}{'drivers':>9}{'most steps again':>18}"]
    for executor in dict.fromkeys(story["executor"] for story in result["stories"]):
        stories = [story for story in result["stories"] if story["executor"] == executor]
        killed = sum((Counter(story["killed"]) for story in stories), Counter[str]())
        most = max(story["steps_again"] for story in stories)
        counts = f"{killed['worker']:>9}{killed['node']:>7}{killed['driver']:>9}"
        lines.append(f"{executor:<12}{len(stories):>8}{counts}{most:>18}")
    return "\n".join([*lines, f"an interval between two evaluations has {result['interval']} steps"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--stories", type=int, default=STORIES)
    parser.add_argument("--first", type=int, default=0, help="seed of the first story")
    parser.add_argument("--drivers", type=float, default=DRIVERS, help="share of the kills")
    parser.add_argument("--ray", type=int, metavar="STORIES", help="so many on Ray instead")
    given = parser.parse_args()
    if not given.show:
        known = json.loads(RESULT.read_text())["stories"] if RESULT.exists() else []
        where, count = (on_processes, given.stories) if given.ray is None else (on_ray, given.ray)
        measured(where, given.drivers, range(given.first, given.first + count), known)
    print(table(json.loads(RESULT.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
