"""Does it matter which layers get the rank? Nine allocations of the same number of parameters, each
at its own tuned rate, on four small tasks with five seeds.

    python benchmarks/ranks/run.py                   # about 10 minutes of one core; writes result.json
    python benchmarks/ranks/run.py --task intents    # one task anew; the others stay
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
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rank_tasks import FACTORS, METHODS, SOURCES, Asked, Places, Task, Trained

from loraloom.facts.device import environment
from loraloom.search.compare import mean_cost, seeds_difference

HERE = Path(__file__).resolve().parent
RESULT = HERE / "result.json"
SEEDS = 5
ERRORS = 2.0
"""Standard errors by which an allocation has to gain before it is advised."""


def measured(task: Task, tuning_seeds: int) -> dict[str, Any]:
    """One task: the rate of each method on validation with seeds of its own, then fresh seeds at it."""
    began = time.process_time()
    tuning = task.train(
        [
            Asked(method, factor, SEEDS + seed)
            for method in METHODS
            for factor in FACTORS
            for seed in range(tuning_seeds)
        ],
        "validation",
    )
    tried = {
        method: {
            factor: sum(loss(one) for one in tuning if one.asked[:2] == (method, factor)) / tuning_seeds
            for factor in FACTORS
        }
        for method in METHODS
    }
    factors = {method: min(losses, key=losses.__getitem__) for method, losses in tried.items()}
    trained = task.train(
        [Asked(method, factors[method], seed) for method in METHODS for seed in range(SEEDS)], "test"
    )
    by_method = {method: [one for one in trained if one.asked.method == method] for method in METHODS}
    others = {
        factor: task.train([Asked("uniform", factor, seed) for seed in range(SEEDS)], "test")
        for factor in FACTORS
        if factor != factors["uniform"]
    }
    base = mean_cost(task.base)
    learnt = base - sum(loss(one) for one in by_method["uniform"]) / SEEDS
    return {
        "base_loss": base,
        "learnt": learnt,
        "tuning_seeds": tuning_seeds,
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
        "uniform_at": {
            factor: line(trained, by_method["uniform"], learnt) for factor, trained in others.items()
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
    print("\nuniform at other rates than its own:")
    for name, task in result["tasks"].items():
        for factor, one in task.get("uniform_at", {}).items():
            print(f"- {name}, {float(factor):g} times the plan's: {gain_text(one)}")


def gain_text(one: Mapping[str, Any]) -> str:
    """ "+18.1% ± 17.2%": a share and two standard errors."""
    return f"{one['share']:+.1%} ± {ERRORS * one['share_se']:.1%}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    shared = HERE.parents[2] / "shared"
    parser.add_argument("--task", action="append", choices=list(SOURCES))
    parser.add_argument("--tuning-seeds", type=int, default=3)
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
    for name in asked.task or list(SOURCES):
        with tempfile.TemporaryDirectory(prefix="ranks-") as work:
            task = Task(name, Places(asked.models, asked.data, Path(work)))
            tasks = {**result["tasks"], name: measured(task, asked.tuning_seeds)}
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


if __name__ == "__main__":
    raise SystemExit(main())
