"""How long until a search of LoRA settings has found one that is as good as any?
Searches are replayed over a table.

    python benchmarks/search/run.py
        # replays over the tables, made first if there are none; writes result.json
    python benchmarks/search/run.py --make table
        # trains all settings with all seeds (about 2 hours of one core)
    python benchmarks/search/run.py --make clock
        # times every piece of work on this machine (about 10 minutes)
    python benchmarks/search/run.py --make live  # five real searches each way (about 5 minutes)
    python benchmarks/search/run.py --show  # the committed result; with --task all of a task

`--task` (also several times) keeps to some of the tasks, `--only` to some of the searches. What is made
lies beside this file and is committed. README.md says how to read the result.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeAlias

HERE = Path(__file__).resolve().parent
REPLAYS = 100
TASKS = ("stories", "intents", "reviews", "verses", "lower-wiki")
LIVE = ("stories", "intents")
"""Tasks that are searched for real as well."""


# -- making
# ------------------------------------------------------------------------------------------------------


def make(what: str, asked: argparse.Namespace) -> int:
    """Train the table, measure the clock, or search for real; gives the exit code."""
    import torch
    from definitions import Files
    from tasks import Task

    chosen = asked.task or (LIVE if what == "live" else TASKS)
    torch.set_num_threads(1)
    if not asked.data.is_dir() or not asked.models.is_dir():
        print(
            f"no data at {asked.data} or no models at {asked.models}\n  next: --data and --models",
            file=sys.stderr,
        )
        return 2
    with tempfile.TemporaryDirectory(prefix="search-") as work:
        tasks = [Task(name, Files(asked.models, asked.data, Path(work))) for name in chosen]
        if what == "table":
            import table

            full = [
                table.make(task, table.path_of(HERE, task.name), asked.minutes, _say) for task in tasks
            ]
            return 0 if all(full) else 1
        if what == "peak":
            print(json.dumps(_peak(tasks[0], asked.way)))
        elif what == "clock":
            import clock

            kept = _read(HERE / "clock.json")
            for task in tasks:
                kept[task.name] = clock.measure(task, _peaks(task.name, asked)).plain()
            _write(
                HERE / "clock.json", kept | {"environment": _environment(), "command": _command("clock")}
            )
        else:
            _live(tasks)
    return 0


def _live(tasks: Sequence[Any]) -> None:
    import live
    from clock import Clock
    from trainer import Alone
    from world import World

    kept = _read(HERE / "live.json")
    for task in tasks:
        world, clock, alone = (
            World.of(HERE, task.name),
            Clock.read(HERE / "clock.json", task.name),
            Alone(task),
        )
        kept[task.name] = []
        for number in range(live.REPEATS):
            kept[task.name] += [asdict(one) for one in live.run(task, world, clock, alone, number)]
            _say(f"{task.name}: repeat {number + 1} of {live.REPEATS}")
    _write(HERE / "live.json", kept | {"environment": _environment(), "command": _command("live")})


WAYS = {"alone": 1, "packed": 8, "trainer": 0}


def _peaks(task: str, asked: argparse.Namespace) -> dict[str, int]:
    """Peak memory of each way to train, each in a process of its own."""
    import subprocess

    found: dict[str, int] = {}
    for way in WAYS:
        command = [sys.executable, __file__, "--make", "peak", "--task", task, "--way", way]
        command += ["--data", str(asked.data), "--models", str(asked.models)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[way] = int(json.loads(done.stdout.splitlines()[-1]))
    return found


def _peak(task: Any, way: str) -> int:
    """Bytes above the loaded base that a training takes, here and now."""
    from clock import peak_of
    from tasks import EVALUATIONS
    from trainer import Alone

    if way == "trainer":
        alone = Alone(task)
        return peak_of(lambda: alone.train({}, 42))
    pack = task.trainer()

    def train() -> None:
        for seed in range(WAYS[way]):
            pack.join(task.candidate(f"t{seed}", {}, seed))
        for _ in range(2 * EVALUATIONS):
            pack.tick()
        pack.evaluate(list(pack.seats))

    return peak_of(train)


# -- replaying
# ---------------------------------------------------------------------------------------------------

Job: TypeAlias = tuple[str, str, int]
"""A task, a search and a number of candidates."""


@cache
def known_of(task: str) -> tuple[Any, Any]:
    """The world and the clock of a task, read once a process."""
    from clock import Clock
    from world import World

    return World.of(HERE, task), Clock.read(HERE / "clock.json", task)


def replayed(job: Job, count: int) -> dict[str, dict[str, Any]]:
    """All replays of one contestant with so many candidates on one task, judged, by what it is called.
    Runs in a process of its own."""
    from contestants import search
    from judge import judge

    task, name, trials = job
    world, clock = known_of(task)
    began = time.process_time()
    courses = search(world, clock, name, trials, count)
    thinking = (time.process_time() - began) / count
    return {called: judge(world, each, thinking).plain() for called, each in courses.items()}


def ready(tasks: Sequence[str] = TASKS) -> list[str]:
    """Tasks whose table is complete and whose clock was measured."""
    from definitions import DEFINITIONS
    from table import Table, path_of

    def full(task: str) -> bool:
        path = path_of(HERE, task)
        return path.is_file() and bool(Table.read(path).done.all())

    clocks = _read(HERE / "clock.json")
    found = [
        task
        for task in tasks
        if task in clocks and all(map(full, filter(None, (task, DEFINITIONS[task].after))))
    ]
    for task in tasks:
        if task not in found:
            _say(
                f"{task} is left out: --make table --task {task} and --make clock --task {task} come"
                " first"
            )
    return found


def jobs_of(tasks: Sequence[str], only: Sequence[str]) -> list[Job]:
    """What is to be replayed: those that take longest first."""
    from contestants import CONTESTANTS, sizes_of

    names = [name for name in CONTESTANTS if not only or name in only]
    jobs = [
        (task, name, trials)
        for name in names
        for task in tasks
        for trials in sizes_of(name, known_of(task)[0])
    ]
    return sorted(jobs, key=lambda job: -job[2])


def replay_all(jobs: Sequence[Job], count: int) -> dict[Job, dict[str, Any]]:
    """As many at a time as there are cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found: dict[Job, dict[str, Any]] = {}
    with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(replayed, job, count): job for job in jobs}
        for done in as_completed(futures):
            task, name, trials = futures[done]
            found |= {(task, called, trials): one for called, one in done.result().items()}
            _say(f"{task}: {name}, {trials} candidates")
    return found


def result_of(
    found: Mapping[Job, dict[str, Any]], known: Mapping[str, Any], seconds: float
) -> dict[str, Any]:
    """What was found now and, of other tasks and searches, what an earlier result says,
    ready for JSON."""
    from contestants import SLOTS, called, sizes_of

    from report import GOAL, sooner

    kept = {task: one["searches"] for task, one in known.get("tasks", {}).items()}
    tasks: dict[str, Any] = {}
    for task in TASKS:
        if task not in kept and not any(job[0] == task for job in found):
            continue
        world, _ = known_of(task)
        searches: dict[str, Any] = {}
        for name, source in called().items():
            before = kept.get(task, {}).get(name, {})
            sizes = {
                size: found.get((task, name, size), before.get(str(size)))
                for size in sizes_of(source, world)
            }
            if any(sizes.values()):
                searches[name] = {str(size): one for size, one in sizes.items() if one}
        tasks[task] = {
            "settings": len(world.settings),
            "planned_settings": int(world.planned.size),
            "good_settings": int(world.good.sum()),
            "within_one_percent": int((world.shares >= 0.99).sum()),
            "share_of_default": float(world.shares[world.default]),
            "table_cpu_seconds": world.table.seconds,
            "sooner": sooner(searches),
            "searches": searches,
        }
    return {
        "benchmark": "search",
        "schema_version": 2,
        "command": _command(None),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "environment": _environment(),
        "slots": SLOTS,
        "goal": GOAL,
        "tasks": tasks,
        "clock": _read(HERE / "clock.json"),
        "live": _read(HERE / "live.json"),
    }


def _environment() -> dict[str, Any]:
    from loraloom.facts.device import environment

    known = environment()
    return {key: known[key] for key in ("python", "platform", "packages", "device", "cores")}


def _command(made: str | None) -> str:
    return "python benchmarks/search/run.py" + (f" --make {made}" if made else "")


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.is_file() else {}


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(written(value) + "\n")


def written(value: Any, indent: str = "") -> str:
    """JSON with a line for each dictionary that holds none."""
    inner = indent + " "
    if isinstance(value, dict) and any(
        isinstance(one, dict) or _of_dicts(one) for one in value.values()
    ):
        lines = [f"{inner}{json.dumps(key)}: {written(one, inner)}" for key, one in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    if _of_dicts(value):
        return "[\n" + ",\n".join(inner + written(one, inner) for one in value) + f"\n{indent}]"
    return json.dumps(value, allow_nan=False)


def _of_dicts(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(one, dict) for one in value)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Searches of LoRA settings, replayed over a table.")
    parser.add_argument(
        "--make",
        choices=("table", "clock", "live", "peak"),
        help="make one of the things that replays stand on",
    )
    parser.add_argument(
        "--task",
        choices=TASKS,
        action="append",
        help="only this task, and what the result says of the others",
    )
    parser.add_argument(
        "--only", metavar="NAME", action="append", default=[], help="only this search, likewise"
    )
    parser.add_argument("--replays", type=int, default=REPLAYS, help="of each search on each task")
    parser.add_argument(
        "--way", choices=tuple(WAYS), default="packed", help="with --make peak: whose memory"
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=math.inf,
        help="with --make table: stop after so long; call again to go on",
    )
    parser.add_argument("--show", action="store_true", help="print the committed result and run nothing")
    parser.add_argument("--data", type=Path, default=HERE.parents[2] / "shared" / "data")
    parser.add_argument("--models", type=Path, default=HERE.parents[2] / "shared" / "models")
    parser.add_argument("--out", type=Path, default=HERE / "result.json")
    asked = parser.parse_args(arguments)
    if asked.show:
        print(shown(_read(asked.out), asked.task))
        return 0
    if asked.make:
        return make(asked.make, asked)
    began = time.perf_counter()
    tasks = ready(asked.task or TASKS)
    if not tasks:
        for what in ("table", "clock", "live"):
            if code := make(what, asked):
                return code
        tasks = ready(asked.task or TASKS)
    found = replay_all(jobs_of(tasks, asked.only), asked.replays)
    result = result_of(found, _read(asked.out), time.perf_counter() - began)
    _write(asked.out, result)
    print(shown(_read(asked.out), asked.task))
    return 0


def shown(result: dict[str, Any], tasks: Sequence[str] | None) -> str:
    from report import page, task_page

    return "\n\n".join(task_page(result, task) for task in tasks) if tasks else page(result)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
