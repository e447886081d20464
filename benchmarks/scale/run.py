"""Two workers on two cores against one worker on one core: wall time of the same search.

    python benchmarks/scale/run.py          # ten minutes or so; writes result.json
    python benchmarks/scale/run.py --show   # the committed result
    python benchmarks/scale/run.py --model FOLDER --steps 40 --rounds 3

Each search is a `loraloom tune` of its own, kept to its cores; the two follow each other in every round,
so that both see the same machine. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
RESULT, ROOT = HERE / "result.json", HERE.parents[1]
SHARED = Path(os.environ.get("LORALOOM_SHARED") or ROOT.parent / "shared")
sys.path.append(str(HERE.parent / "packed"))

TRIALS, PACK_SIZE, ROWS, WORDS = 4, 2, 256, 24
TARGET = 1.6
WORKERS = (1, 2)
"""So many workers, with one core each."""


def write_rows(path: Path) -> Path:
    """Sentences of a made-up language: what is trained does not matter here."""
    draw = random.Random(0)
    vocabulary = ["".join(draw.choices("aeioubdfgklmnprst", k=draw.randint(2, 7))) for _ in range(500)]
    rows = [{"text": " ".join(draw.choices(vocabulary, k=WORDS))} for _ in range(ROWS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def search(home: Path, model: Path, rows: Path, workers: int, steps: int) -> dict[str, float]:
    """One search; seconds of the whole command, and of its trainings from the first start to the last
    end."""
    name = f"workers-{workers}"
    words = [
        *("tune", "--model", model, "--data", rows, "--output-dir", home, "--name", name, "--quiet"),
        *("--workers", workers, "--trials", TRIALS, "--max-steps", steps, "--max-packed", PACK_SIZE),
        *("--no-history", "--batch-size", 4, "--set", "search.pruner=none"),
        *("--set", "search.seeds_for_finalists=1", "--set", "model.dtype=float32"),
    ]
    cores = sorted(os.sched_getaffinity(0))[:workers]
    own = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    began = time.perf_counter()
    command = [sys.executable, "-m", "loraloom", *map(str, words)]
    process = subprocess.Popen(
        ["taskset", "-c", ",".join(map(str, cores)), *command],
        env={**own, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), own.get("PYTHONPATH", "")])},
        stdout=subprocess.DEVNULL,
    )
    if process.wait():
        raise SystemExit(f"the search on {workers} workers ended with code {process.returncode}")
    whole = time.perf_counter() - began
    lines = (home / name / "events.jsonl").read_text(encoding="utf-8").splitlines()
    events = [json.loads(line) for line in lines]
    first = min(event["at"] for event in events if event["kind"] == "trial_started")
    last = max(event["at"] for event in events if event["kind"] == "completed")
    return {"search_seconds": round(last - first, 2), "command_seconds": round(whole, 2)}


def measure(model: Path, steps: int, rounds: int) -> dict[str, Any]:
    """All rounds, and the ratio of the medians."""
    from machine import describe, versions

    times: list[dict[str, dict[str, float]]] = []
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as place:
            home = Path(place)
            rows = write_rows(home / "rows.jsonl")
            # Who is first changes: a machine that warms up, or cools, favours nobody.
            order = WORKERS if number % 2 == 0 else WORKERS[::-1]
            times.append({str(n): search(home, model, rows, n, steps) for n in order})
            print(f"round {number + 1}: {times[-1]}", flush=True)
    ratios = {
        kind: round(median(one["1"][kind] for one in times) / median(one["2"][kind] for one in times), 3)
        for kind in ("search_seconds", "command_seconds")
    }
    return {
        "model": model.name,
        "trials": TRIALS,
        "pack_size": PACK_SIZE,
        "steps": steps,
        "rounds": times,
        "ratio": ratios,
        "target": TARGET,
        "machine": describe("cpu"),
        "versions": versions(),
    }


def table(result: dict[str, Any]) -> str:
    """Seconds by workers, and how many times as fast."""
    lines = [f"{'':<16} {'one worker':>11} {'two workers':>12} {'times as fast':>14}"]
    for kind, ratio in result["ratio"].items():
        one, two = (median(round_[str(n)][kind] for round_ in result["rounds"]) for n in WORKERS)
        lines.append(f"{kind.replace('_', ', '):<16} {one:>11.1f} {two:>12.1f} {ratio:>14.2f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--model", type=Path, default=SHARED / "models" / "tinychat-5M")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    if not given.show:
        result = measure(given.model, given.steps, given.rounds)
        given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table(json.loads(given.out.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
