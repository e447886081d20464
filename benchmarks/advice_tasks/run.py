"""Does the plan alone, without a search, come near what a search finds? Four real
tasks, against the defaults of three tools.

python benchmarks/advice_tasks/run.py [--task NAME]... [--shared FOLDER] [--show]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gaps import DEFAULTS, gaps, verdict
from measured_arms import BEST, PLAN, SEEDS, SLOTS, TRIALS, measure
from real_tasks import TASKS, RealTask
from tool_defaults import TOOLS

from loraloom.facts.device import environment

HERE = Path(__file__).resolve().parent
SHARED = HERE.parents[2] / "shared"
RESULT = HERE / "result.json"
COMMAND = "python benchmarks/advice_tasks/run.py"


def measured(task: RealTask, shared: Path) -> dict[str, Any]:
    """One task's part of the result; what is written on the way is thrown away."""
    with tempfile.TemporaryDirectory() as work:
        found = measure(task, shared, Path(work), lambda text: print(text, file=sys.stderr, flush=True))
    about = environment()
    machine = {
        "device": about["device"]["name"],
        "kind": about["device"]["kind"],
        "threads": about["threads"],
    }
    return {
        "command": f"{COMMAND} --task {task.name}",
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine,
        "versions": {"python": about["python"], **about["packages"]},
        **found.record,
        "gaps": gaps(found.scores),
    }


def merged(result: Mapping[str, Any], fresh: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """The whole result with some tasks measured anew."""
    known = result.get("tasks", {}) | fresh
    tasks = {task.name: known[task.name] for task in TASKS if task.name in known}
    return {
        "command": COMMAND,
        "trials": TRIALS,
        "seeds": SEEDS,
        "slots": SLOTS,
        "tools": {tool.name: tool.source for tool in TOOLS},
        "core_seconds": sum(task["core_seconds"]["all"] for task in tasks.values()),
        "targets": verdict(tasks),
        "tasks": tasks,
    }


def table(result: Mapping[str, Any]) -> str:
    """The result as people read it."""
    arms = (*DEFAULTS, PLAN, BEST)
    lines = [
        f"{'error rate or loss on test':<28}"
        + "".join(f"{arm:>17}" for arm in ("base", *arms))
        + f"{'share':>8}"
    ]
    for name, task in result["tasks"].items():
        costs = [task["base"], *(task["arms"][arm]["cost"] for arm in arms)]
        part = task["gaps"]["share"]
        shown = "none" if part is None else f"{part:.0%}"
        lines.append(f"{name:<28}" + "".join(f"{cost:>17.4f}" for cost in costs) + f"{shown:>8}")
    lines.append("")
    for name, task in result["tasks"].items():
        found, behind = task["gaps"], task["gaps"]["behind_best_default"]
        lines.append(
            f"{name}: plan minus {found['best_default']} {behind['mean']:+.4f} +- {behind['se']:.4f}"
            f" ({behind['errors']:+.1f} standard errors); below 0 the plan is better"
        )
    for name, found in result["targets"].items():
        lines.append(
            f"target {name} {found['target']}: {found['reached']} {'met' if found['met'] else 'MISSED'}"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--task",
        action="append",
        choices=[task.name for task in TASKS],
        help="this one only; may be repeated",
    )
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder with data/ and models/")
    parser.add_argument(
        "--output", type=Path, default=RESULT, help="where the result goes; tasks that it holds are kept"
    )
    parser.add_argument("--show", action="store_true", help="print the committed result and leave")
    asked = parser.parse_args(arguments)
    if asked.show:
        print(table(json.loads(RESULT.read_text(encoding="utf-8"))))
        return 0
    if not (asked.shared / "data").is_dir():
        print(
            f"skipped: there is no {asked.shared.name}/data (name the folder with --shared FOLDER)",
            file=sys.stderr,
        )
        return 0
    for task in TASKS:
        if not asked.task or task.name in asked.task:
            found = measured(task, asked.shared)
            before = (
                json.loads(asked.output.read_text(encoding="utf-8")) if asked.output.is_file() else {}
            )
            result = merged(before, {task.name: found})
            asked.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
            print(table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
