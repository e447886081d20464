"""What a search costs its driver: CPU time for each report, over simulated trainings,
before and after the pruners remembered.

    python benchmarks/driver/run.py          # about ten minutes, most of them before; writes result.json
    python benchmarks/driver/run.py --show   # the committed result

Each case is a process of its own, on the source of its commit. What a search decides is
hashed: both sources decide the same.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
RESULT, ROOT = HERE / "result.json", HERE.parents[1]
BEFORE = "ae261f7"
PRUNERS = ("auto", "careful", "asha", "hyperband", "median", "none")
CANDIDATES = (100, 200, 400, 1024)
PACKED = 4
"""One of so many candidates is in training at a time: 256 of 1,024, four on each of 64 devices."""
EVALUATIONS, STEPS, ROWS = 8, 400, 128
LIMIT_SECONDS = 90.0
"""A case that takes more CPU time is cut there; its means are those of the reports until then."""
RATE, RANK = "training.learning_rate", "adapter.r"
PLAN: dict[str, Any] = {
    RATE: 3e-4,
    RANK: 16,
    "adapter.lora_alpha": 32.0,
    "adapter.lora_dropout": 0.0,
    "adapter.target_modules": "all-linear",
    "training.per_device_train_batch_size": 16,
    "training.weight_decay": 0.0,
    "training.warmup_ratio": 0.06,
}
ENDS: Mapping[str, Any] = {"prune": "pruned", "diverged": "diverged", "stop": "completed"}


class Clock:
    """CPU time of what is called through it."""

    def __init__(self) -> None:
        self.seconds = {"report": 0.0, "ask": 0.0}

    def __call__(self, kind: str, act: Any, *given: Any) -> Any:
        began = time.process_time()
        answer = act(*given)
        self.seconds[kind] += time.process_time() - began
        return answer


def simulate(pruner: str, candidates: int) -> dict[str, Any]:
    """One search to its end, or to the limit. The tool's own pruner goes with its own
    sampler; others draw by chance."""
    from loraloom.records import Score
    from loraloom.search.default_space import default_space
    from loraloom.search.searcher import Observation, Searcher

    slots = candidates // PACKED
    space = default_space(PLAN, candidates, slots, wide=pruner == "auto")
    search = Searcher(
        space, PLAN, candidates, slots, "auto" if pruner == "auto" else "random", pruner, 7
    )
    rng, clock, told = np.random.default_rng(1), Clock(), hashlib.sha256()
    hard, running, waiting = (
        rng.gamma(2.0, 0.5, ROWS),
        dict[str, tuple[float, int]](),
        dict[str, tuple[float, int]](),
    )
    reports = asked = 0

    def fill() -> None:
        nonlocal asked
        while len(running) < slots and (
            one := clock("ask", lambda: search.ask() if search.ready else None)
        ):
            told.update(repr((one.id, sorted(one.params.items()))).encode())
            asked += one.id not in waiting
            end = 1.0 + 0.2 * math.log(one.params[RATE] / 5e-4) ** 2 + rng.normal(0.0, 0.01)
            running[one.id] = waiting.pop(one.id, (end, 0))

    def evaluate(name: str) -> None:
        nonlocal reports
        end, place = running[name]
        progress = (place + 1) / EVALUATIONS
        running[name] = (end, place + 1)
        rows = end + (3.0 - end) * 0.6 * (1 - progress) ** 2 + hard + rng.normal(0.0, 0.1, ROWS)
        score = Score("validation", {"loss": float(rows.mean())}, tuple(rows.tolist()), (1.0,) * ROWS)
        seen = Observation(
            name,
            round(STEPS * progress),
            progress,
            0.06,
            score,
            float(rows.mean()),
            3.0,
            ("linear", 0.06),
        )
        reports += 1
        clock("report", search.report, seen)
        for verdict in clock("report", search.verdicts):
            told.update(repr(verdict).encode())
            if verdict.action == "pause":
                waiting[verdict.trial_id] = running.pop(verdict.trial_id)
                continue
            clock(
                "report",
                search.tell,
                verdict.trial_id,
                ENDS[verdict.action],
                score if verdict.action == "stop" else None,
            )
            (running if verdict.trial_id in running else waiting).pop(verdict.trial_id)
        if place + 1 == EVALUATIONS and name in running:
            clock("report", search.tell, name, "completed", score)
            del running[name]

    fill()
    while running and sum(clock.seconds.values()) < LIMIT_SECONDS:
        for name in rng.permutation(sorted(running)).tolist():
            if name in running and sum(clock.seconds.values()) < LIMIT_SECONDS:
                evaluate(name)
                fill()
    return {
        "pruner": pruner,
        "candidates": candidates,
        "asked": asked,
        "reports": reports,
        "whole": not running,
        **{f"{kind}_ms": round(1000 * seconds / reports, 3) for kind, seconds in clock.seconds.items()},
        "cpu_seconds": round(sum(clock.seconds.values()), 2),
        "decided": told.hexdigest()[:16],
    }


def measured(source: Path, pruner: str, candidates: int) -> dict[str, Any]:
    """One case in a process of its own."""
    env = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, str(Path(__file__).resolve()), "--case", pruner, str(candidates)]
    return json.loads(subprocess.run(words, env=env, check=True, capture_output=True, text=True).stdout)


def table(result: Mapping[str, Any]) -> str:
    """CPU milliseconds for each report: what the report takes, and what asking takes beside it."""
    lines = [
        f"{'pruner':<10} {'candidates':>10} {'before':>16} {'after':>16}   (report + ask, ms; * cut"
        " short)"
    ]
    for row in result["cases"]:
        cells = [
            f"{s['report_ms']:.2f} + {s['ask_ms']:.2f}{' ' if s['whole'] else '*'}"
            for s in (row["before"], row["after"])
        ]
        lines.append(
            f"{row['after']['pruner']:<10} {row['after']['candidates']:>10} {cells[0]:>16}"
            f" {cells[1]:>16}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--case", nargs=2, metavar=("PRUNER", "CANDIDATES"))
    given = parser.parse_args()
    if given.case:
        print(json.dumps(simulate(given.case[0], int(given.case[1]))))
        return
    if not given.show:
        with tempfile.TemporaryDirectory() as folder:
            archive = subprocess.run(
                ["git", "archive", BEFORE, "src"], cwd=ROOT, check=True, capture_output=True
            ).stdout
            subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
            sources = {"before": Path(folder) / "src", "after": ROOT / "src"}
            pairs = [(pruner, count) for pruner in PRUNERS for count in CANDIDATES]
            cases = [
                {name: measured(source, *pair) for name, source in sources.items()} for pair in pairs
            ]
        RESULT.write_text(
            json.dumps({"before": BEFORE, "cases": cases}, indent=1) + "\n", encoding="utf-8"
        )
    print(table(json.loads(RESULT.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
