"""Does it matter which layers get the rank? Nine allocations of the same number of parameters, each
at its own tuned rate, on four small tasks with five seeds.

    python benchmarks/ranks/run.py                   # about 10 minutes of one core; writes result.json
    python benchmarks/ranks/run.py --task intents    # one task anew; the others stay
    python benchmarks/ranks/run.py --checks          # of the gains on intents: rate, more steps
    python benchmarks/ranks/run.py --show            # the tables of the committed result

README.md says what is measured and how to read it.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rank_tasks import FACTORS, METHODS, SOURCES, Asked, Places, Task, Trained

from loraloom.config import names
from loraloom.facts.device import environment
from loraloom.search.compare import mean_cost, seeds_difference

HERE = Path(__file__).resolve().parent
RESULT = HERE / "result.json"
SEEDS = 5
ERRORS = 2.0
"""Standard errors by which an allocation has to gain before it is advised."""
LONGER = 160
"""Steps, four times as many: a gain of 40 may be one of speed."""


def measured(task: Task, methods: Sequence[str] = METHODS) -> dict[str, Any]:
    """One task: the rate of each method on validation with a seed of its own, then fresh seeds at it."""
    began = time.process_time()
    tuning = task.train(
        [Asked(method, factor, SEEDS) for method in methods for factor in FACTORS], "validation"
    )
    tried = {
        method: {one.asked.factor: loss(one) for one in tuning if one.asked.method == method}
        for method in methods
    }
    factors = {method: min(losses, key=losses.__getitem__) for method, losses in tried.items()}
    trained = task.train(
        [Asked(method, factors[method], seed) for method in methods for seed in range(SEEDS)], "test"
    )
    by_method = {method: [one for one in trained if one.asked.method == method] for method in methods}
    base = mean_cost(task.base)
    learnt = base - sum(loss(one) for one in by_method["uniform"]) / SEEDS
    return {
        "base_loss": base,
        "learnt": learnt,
        "test_rows": len(task.base.costs),
        "methods": {
            method: {
                "factor": factors[method],
                "rates_tried": tried[method],
                "ranks": task.measured[method],
                **line(trained, by_method["uniform"], learnt),
            }
            for method, trained in by_method.items()
        },
        "core_seconds": time.process_time() - began,
    }


def line(trained: Sequence[Trained], uniform: Sequence[Trained], learnt: float) -> dict[str, Any]:
    """One method: its losses, and by how much it is better than uniform on the same seeds and rows."""
    metrics = [one.score.metrics for one in trained]
    name = next(name for name in ("accuracy", "token_accuracy") if name in metrics[0])
    found: dict[str, Any] = {
        "parameters": trained[0].parameters,
        "losses": [loss(one) for one in trained],
        "loss": sum(loss(one) for one in trained) / len(trained),
        name: sum(one[name] for one in metrics) / len(metrics),
    }
    if trained is not uniform:
        gap = seeds_difference([one.score for one in uniform], [one.score for one in trained])
        found |= {"gain": gap.mean, "gain_se": gap.se}
        found |= {"share": gap.mean / learnt, "share_se": gap.se / learnt}
    return found


def together(tasks: Mapping[str, Any]) -> dict[str, Any]:
    """Each method over all tasks: its mean gain as a share of what uniform learns there."""
    found: dict[str, Any] = {}
    for method in METHODS[1:]:
        lines = [task["methods"][method] for task in tasks.values()]
        share = sum(one["share"] for one in lines) / len(lines)
        error = math.sqrt(sum(one["share_se"] ** 2 for one in lines)) / len(lines)
        found[method] = {
            "share": share,
            "share_se": error,
            "verdict": verdict(share, error),
        }
    return found


def verdict(share: float, error: float) -> str:
    if abs(share) < ERRORS * error:
        return "cannot be told apart"
    return "gains" if share > 0 else "loses"


def loss(one: Trained) -> float:
    """The mean; a training that went astray is the worst."""
    found = mean_cost(one.score)
    return found if math.isfinite(found) else math.inf


def show(result: Mapping[str, Any]) -> None:
    """The tables, as they stand in README.md."""
    print("| task | bare base | uniform learns | at a rate of | rows of test |")
    print("| --- | --- | --- | --- | --- |")
    for name, task in result["tasks"].items():
        factor = task["methods"]["uniform"]["factor"]
        losses = f"{task['base_loss']:.3f} | {task['learnt']:.3f}"
        print(f"| {name} | {losses} | {factor:g} times the plan's | {task['test_rows']} |")
    print(f"\n| allocation | {' | '.join(result['tasks'])} | all | |")
    print(f"| --- |{' --- |' * (len(result['tasks']) + 2)}")
    for method in result["together"]:
        lines = [*(task["methods"][method] for task in result["tasks"].values())]
        whole = result["together"][method]
        cells = [gain_text(one) for one in (*lines, whole)]
        print(f"| {method} | {' | '.join(cells)} | {whole['verdict']} |")
    if "checks" in result:
        show_checks(result["checks"])


def show_checks(found: Mapping[str, Any]) -> None:
    """What came of the gains on the first task."""
    print("\n| uniform at | gain over its own rate |\n| --- | --- |")
    for factor, one in found["uniform_at"].items():
        print(f"| {factor} times the plan's | {gain_text(one)} |")
    print(f"\n| in {LONGER} steps | at | gain | |\n| --- | --- | --- | --- |")
    for method, one in found.get("longer", {}).get("methods", {}).items():
        if "share" in one:
            said = verdict(one["share"], one["share_se"])
            print(f"| {method} | {one['factor']:g} times the plan's | {gain_text(one)} | {said} |")


def gain_text(one: Mapping[str, Any]) -> str:
    """ "+18.1% ± 17.2%": a share and two standard errors."""
    if "share" not in one:
        return "–"
    return f"{one['share']:+.1%} ± {ERRORS * one['share_se']:.1%}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    shared = HERE.parents[2] / "shared"
    parser.add_argument("--task", action="append", choices=list(SOURCES))
    parser.add_argument("--checks", action="store_true")
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--data", type=Path, default=shared / "data")
    parser.add_argument("--models", type=Path, default=shared / "models")
    asked = parser.parse_args()
    result: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() else {"tasks": {}}
    if asked.show:
        show(result)
        return 0
    if not asked.data.is_dir() or not asked.models.is_dir():
        print(f"no data at {asked.data} or no models at {asked.models}", file=sys.stderr)
        print("  next: --data and --models", file=sys.stderr)
        return 2
    import torch

    torch.set_num_threads(1)
    if asked.checks:
        for part in checks(result["tasks"], asked):
            result["checks"] = {**result.get("checks", {}), **part}
            RESULT.write_text(json.dumps(result, indent=1) + "\n")
    for name in [] if asked.checks else asked.task or list(SOURCES):
        with tempfile.TemporaryDirectory(prefix="ranks-") as work:
            task = Task(name, Places(asked.models, asked.data, Path(work)))
            tasks = {**result["tasks"], name: measured(task)}
        result |= {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "environment": environment("float32"),
            "tasks": {one: tasks[one] for one in SOURCES if one in tasks},
        }
        result["together"] = together(result["tasks"])
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
        print(f"{name}: {result['tasks'][name]['core_seconds']:.0f} core seconds", flush=True)
    show(result)
    return 0


def checks(tasks: Mapping[str, Any], asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What gains on the first task: is it the rate that one seed chose, and does it last?"""
    first = next(iter(SOURCES))
    methods = tasks[first]["methods"]
    gaining = [
        method
        for method, one in methods.items()
        if method != "uniform" and verdict(one["share"], one["share_se"]) == "gains"
    ]
    with tempfile.TemporaryDirectory(prefix="ranks-") as work:
        places = Places(asked.models, asked.data, Path(work))
        task = Task(first, places)
        own = methods["uniform"]["factor"]
        at_rate = {
            factor: task.train([Asked("uniform", factor, seed) for seed in range(SEEDS)], "test")
            for factor in FACTORS
        }
        learnt = tasks[first]["learnt"]
        yield {
            "uniform_at": {factor: line(one, at_rate[own], learnt) for factor, one in at_rate.items()}
        }
        task = Task(first, places, {names.MAX_STEPS: LONGER})
        yield {"longer": measured(task, ["uniform", *gaining])}


if __name__ == "__main__":
    raise SystemExit(main())
