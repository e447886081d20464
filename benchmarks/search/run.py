"""How long until a search of LoRA settings has found one that is as good as any? Searches are replayed over a table.

    python benchmarks/search/run.py                   # replays over the tables, made first if there are none; writes result.json
    python benchmarks/search/run.py --make table      # trains all settings with all seeds (about 45 minutes of one core)
    python benchmarks/search/run.py --make clock      # times every piece of work on this machine (about 5 minutes)
    python benchmarks/search/run.py --make live       # five real searches each way, in small (about 5 minutes)
    python benchmarks/search/run.py --show            # the committed result

What is made lies beside this file and is committed. README.md says how to read the result.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
REPLAYS = 100
GOAL = 8.0
TASKS = ("stories", "intents")
OURS, SLOW = "loraloom packed, pruned, auto", "sequential random, Trainer"
USUAL, PLANNED = "sequential random, Trainer in float32", "sequential random in the plan's range, Trainer"
RELIABLE = (0.5, 0.75, 0.9)
"""Shares of searches that declare a winner within the target."""


def table_path(task: str) -> Path:
    return HERE / f"table_{task}.npz"


# -- making ------------------------------------------------------------------------------------------------------


def make(what: str, asked: argparse.Namespace) -> int:
    """Train the table, measure the clock, or search for real; gives the exit code."""
    import torch
    from tasks import Files, Task

    torch.set_num_threads(1)
    if not asked.data.is_dir() or not asked.models.is_dir():
        print(f"no data at {asked.data} or no models at {asked.models}\n  next: --data and --models", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="search-") as work:
        tasks = [Task(name, Files(asked.models, asked.data, Path(work))) for name in TASKS if asked.task in (None, name)]
        if what == "table":
            import table

            full = [table.make(task, table_path(task.name), asked.minutes, _say) for task in tasks]
            return 0 if all(full) else 1
        if what == "peak":
            print(json.dumps(_peak(tasks[0], asked.way)))
        elif what == "clock":
            import clock

            kept = _read(HERE / "clock.json")
            for task in tasks:
                kept[task.name] = clock.measure(task, _peaks(task.name, asked)).plain()
            _write(HERE / "clock.json", kept | {"environment": _environment(), "command": _command("clock")})
        else:
            _live(tasks)
    return 0


def _live(tasks: Sequence[Any]) -> None:
    import live
    from clock import Clock
    from table import Table
    from trainer import Alone
    from world import World

    kept = _read(HERE / "live.json")
    for task in tasks:
        world, clock, alone = World(Table.read(table_path(task.name))), Clock.read(HERE / "clock.json", task.name), Alone(task)
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


# -- replaying ---------------------------------------------------------------------------------------------------


def replayed(task: str, name: str, trials: int, count: int) -> dict[str, Any]:
    """All replays of one contestant with so many candidates on one task, judged. Runs in a process of its own."""
    from clock import Clock
    from contestants import CONTESTANTS
    from judge import judge
    from table import Table
    from world import World

    world, clock = World(Table.read(table_path(task))), Clock.read(HERE / "clock.json", task)
    began = time.process_time()
    courses = [CONTESTANTS[name](world, clock, number, trials) for number in range(count)]
    return judge(world, courses, thinking=(time.process_time() - began) / count).plain()


def ready() -> list[str]:
    """Tasks whose table is complete and whose clock was measured."""
    from table import Table

    clocks = _read(HERE / "clock.json")
    found = [task for task in TASKS if task in clocks and table_path(task).is_file() and Table.read(table_path(task)).done.all()]
    for task in TASKS:
        if task not in found:
            _say(f"{task} is left out: --make table --task {task} and --make clock --task {task} come first")
    return found


def replay_all(
    tasks: Sequence[str], count: int, only: str | None = None, known: dict[str, Any] | None = None
) -> dict[str, dict[int, dict[str, Any]]]:
    """Every contestant on every task, by candidates and name; as many at a time as there are cores.

    Args:
        only: this contestant alone is replayed anew.
        known: the committed result, which holds the others.
    """
    from contestants import BUDGETS, CONTESTANTS, LADDER, TRIALS

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    sizes = dict.fromkeys(BUDGETS, LADDER) | {TRIALS: tuple(CONTESTANTS)}
    jobs = [(task, name, trials) for trials, names in sizes.items() for name in reversed(names) for task in tasks]
    kept = {job: _known(known or {}, *job) for job in jobs if only not in (None, job[1])}
    jobs = [job for job in jobs if job not in kept]
    with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
        futures = {job: pool.submit(replayed, *job, count) for job in jobs}
        found: dict[tuple[str, str, int], dict[str, Any]] = dict(kept)
        for job, future in futures.items():
            found[job] = future.result()
            _say(f"{job[0]}: {job[1]}, {job[2]} candidates")
    return {
        task: {trials: {name: found[task, name, trials] for name in names} for trials, names in sizes.items()} for task in tasks
    }


def _known(result: dict[str, Any], task: str, name: str, trials: int) -> dict[str, Any]:
    """What a result says of a contestant."""
    found = result["tasks"][task]
    return {**found["contestants"], **found["ladder"][str(trials)]}[name]


def result_of(judged: dict[str, dict[int, dict[str, Any]]], count: int, seconds: float) -> dict[str, Any]:
    """Everything that is known, ready for JSON."""
    import contestants
    from table import Table
    from world import World

    tasks: dict[str, Any] = {}
    for task in judged:
        world = World(Table.read(table_path(task)))
        tasks[task] = {
            "settings": len(world.settings), "good_settings": int(world.good.sum()),
            "within_one_percent": int((world.shares >= 0.99).sum()), "share_of_default": float(world.shares[world.default]),
            "planned_settings": int(world.planned.size), "table_cpu_seconds": world.table.seconds,
            "contestants": judged[task][contestants.TRIALS], "gains": gains(judged[task][contestants.TRIALS]),
            "ladder": {str(trials): {name: found[name] for name in contestants.LADDER} for trials, found in judged[task].items()},
            "reliable": {str(share): reliable(judged[task], contestants.LADDER, share) for share in RELIABLE},
        }  # fmt: skip
    reached = {task: tasks[task]["gains"][0] for task in judged}
    return {
        "benchmark": "search", "schema_version": 1, "command": _command(None),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1), "environment": _environment(), "replays": count, "trials": contestants.TRIALS,
        "slots": contestants.SLOTS, "goal": {"times_sequential_random": GOAL, "reached": reached}, "tasks": tasks,
        "clock": _read(HERE / "clock.json"), "live": _read(HERE / "live.json"),
    }  # fmt: skip


def reliable(judged: dict[int, dict[str, Any]], names: Sequence[str], share: float) -> dict[str, Any]:
    """By name, the shortest searches of which this share declares a winner within the target: candidates and median seconds;
    null where none of the sizes does."""
    found: dict[str, Any] = {}
    for name in names:
        able = [(one[name]["whole"][1], trials) for trials, one in judged.items() if one[name]["hit"] >= share]
        found[name] = dict(zip(("seconds", "trials"), min(able), strict=True)) if able else None
    return found


def gains(judged: dict[str, Any]) -> list[dict[str, Any]]:
    """How many times faster, whole and by part."""
    from contestants import CELLS
    from judge import Judged, factorial, gain

    by_name = {name: Judged.of_plain(one) for name, one in judged.items()}
    cells = {(cell.packing, cell.pruning, cell.sampler): by_name[cell.name] for cell in CELLS}
    found = [
        gain(f"ours over {SLOW}", by_name[SLOW], by_name[OURS]),
        gain(f"ours over {USUAL}", by_name[USUAL], by_name[OURS]),
        gain("the plan's range, Trainer", by_name[SLOW], by_name[PLANNED]),
        gain("our engine over Trainer, both alone, random and whole", by_name[PLANNED], cells[False, False, False]),
        gain("ours over the same engine alone, random and whole", cells[False, False, False], by_name[OURS]),
        *factorial(cells),
    ]
    return [one.plain() for one in found]


# -- words -------------------------------------------------------------------------------------------------------


def report(result: dict[str, Any]) -> str:
    """One table a task, and the gains."""
    lines: list[str] = []
    for task, found in result["tasks"].items():
        lines += [
            f"{task}: {found['good_settings']} of {found['settings']} settings are within the target; the plan's own goes "
            f"{found['share_of_default']:.1%} of the way", "",
            "| search | to the target, s | to the winner, s | hit | cut | false prunes | best lost | false winners | regret |",
            "|" + " --- |" * 9,
        ]  # fmt: skip
        for name, one in found["contestants"].items():
            false = "" if one["false_prunes"] is None else f"{one['false_prunes']:.1%}"
            cells = (
                name, _times(one["target"]), _times(one["whole"]), f"{one['hit']:.0%}", f"{one['cut']:.1f}", false,
                f"{one['lost']:.0%}", f"{one['false_winners']:.0%}", f"{one['regret']:.1%}",
            )  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
        lines += ["", "| times faster | to the target | to the winner |", "| --- | --- | --- |"]
        lines += [f"| {one['what']} | {_factor(one['target'])} | {_factor(one['whole'])} |" for one in found["gains"]]
        lines += ["", "| candidates | " + " | ".join(found["reliable"][str(RELIABLE[0])]) + " |", "|" + " --- |" * 6]
        for trials, by_name in found["ladder"].items():
            cells = [f"{one['whole'][1]:.1f} s, {one['hit']:.0%}, {one['regret']:.1%}" for one in by_name.values()]
            lines.append(f"| {trials} | " + " | ".join(cells) + " |")
        for share, by_name in found["reliable"].items():
            cells = ["never" if one is None else f"{one['seconds']:.1f} s" for one in by_name.values()]
            lines.append(f"| hit by {float(share):.0%} | " + " | ".join(cells) + " |")
        peaks = ", ".join(f"{way} {size / 1e6:.0f} MB" for way, size in result["clock"][task]["peaks"].items())
        lines += ["", f"peak memory above the loaded base: {peaks}", ""]
    for task, one in result["goal"]["reached"].items():
        times = f"{_factor(one['target'])} to the target, {_factor(one['whole'])} to the winner"
        lines.append(f"goal: {result['goal']['times_sequential_random']:g} times; {task}: {times}")
    return "\n".join(lines)


def _times(three: Sequence[float | None]) -> str:
    low, middle, high = ("never" if value is None else f"{value:.1f}" for value in three)
    return f"{middle} ({low} to {high})"


def _factor(value: float | None) -> str:
    return "never" if value is None else f"{value:.2f}"


def _environment() -> dict[str, Any]:
    from loraloom.facts.device import environment

    known = environment()
    return {key: known[key] for key in ("python", "platform", "packages", "device", "cores")}


def _command(made: str | None) -> str:
    return "python benchmarks/search/run.py" + (f" --make {made}" if made else "")


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.is_file() else {}


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Searches of LoRA settings, replayed over a table.")
    parser.add_argument("--make", choices=("table", "clock", "live", "peak"), help="make one of the things that replays stand on")
    parser.add_argument("--task", choices=TASKS, help="with --make: this task only")
    parser.add_argument("--way", choices=tuple(WAYS), default="packed", help="with --make peak: whose memory")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="with --make table: stop after so long; call again to go on"
    )
    parser.add_argument("--only", metavar="NAME", help="replay this contestant anew and keep what the result says of the others")
    parser.add_argument("--replays", type=int, default=REPLAYS, help="of each contestant on each task")
    parser.add_argument("--show", action="store_true", help="print the committed result and run nothing")
    parser.add_argument("--data", type=Path, default=HERE.parents[2] / "shared" / "data")
    parser.add_argument("--models", type=Path, default=HERE.parents[2] / "shared" / "models")
    parser.add_argument("--out", type=Path, default=HERE / "result.json")
    asked = parser.parse_args(arguments)
    if asked.show:
        print(report(_read(asked.out)))
        return 0
    if asked.make:
        return make(asked.make, asked)
    began = time.perf_counter()
    tasks = ready()
    if not tasks:
        for what in ("table", "clock", "live"):
            if code := make(what, asked):
                return code
        tasks = ready()
    known = _read(asked.out)
    replays = known["replays"] if asked.only else asked.replays
    judged = replay_all(tasks, replays, asked.only, known)
    result = result_of(judged, replays, time.perf_counter() - began)
    print(report(result))
    _write(asked.out, result)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
