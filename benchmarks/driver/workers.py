"""What a driver of 64 workers costs: 1,024 pretended candidates, and everything of the
driver's own for real.

    python benchmarks/driver/workers.py          # about ten minutes; writes workers.json
    python benchmarks/driver/workers.py --show   # the committed result

Real are the searcher, its journal, events.jsonl, run.json, the checkpoints and the index; the workers
are the fakes of tests/contracts, in virtual time, and what they take is left out. Files are written by
the clock of that time, as often as in a run that lasts so long. All times are CPU time, which other
processes hardly disturb.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partialmethod
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULT, ROOT = HERE / "workers.json", HERE.parents[1]
sys.path[:0] = [str(ROOT / "tests" / "contracts"), str(ROOT / "tests" / "end_to_end")]

WORKERS, PACK_SIZE, CANDIDATES = 64, 4, 1024
STEPS, EVALUATIONS, ROWS = 400, 8, 128
PRUNERS = ("auto", "careful", "none")
TRACE = 128
"""Points of each of the five curves that diagnosis keeps of a candidate."""


class Meter:
    """CPU seconds of what is called through it."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def over(self, owner: Any, name: str) -> None:
        """Measure every call of a method from here on."""
        act: Callable[..., Any] = getattr(owner, name)

        def measured(*given: Any, **named: Any) -> Any:
            began = time.process_time()
            try:
                return act(*given, **named)
            finally:
                self.times.append(time.process_time() - began)

        setattr(owner, name, measured)

    def told(self) -> dict[str, float]:
        """Their number and sum; the mean, and the largest, in milliseconds."""
        seconds, count = sum(self.times), len(self.times)
        return {
            "count": count,
            "seconds": round(seconds, 2),
            "mean_ms": round(1000 * seconds / max(1, count), 3),
            "largest_ms": round(1000 * max(self.times, default=0.0), 1),
        }


def prepared_request(home: Path, pruner: str, candidates: int) -> Any:
    """A real request; its model is tiny, and nothing of it is trained."""
    from bases import save_bert
    from doorway import write_rows

    from loraloom.config.decode import load_config
    from loraloom.pipeline.prepare import prepare

    sentences = [
        f"the {who} {does} here"
        for who in ("cat", "dog", "bird")
        for does in ("sleeps", "waits", "turns")
    ]
    rows = [{"text": one, "label": one.split()[1]} for one in sentences * 3]
    asked = {
        "data.train": write_rows(home / "rows.jsonl", rows),
        "data.validation": 0.3,
        "output_dir": str(home),
        "model.name_or_path": str(save_bert(home / "bert", sentences)),
        "search.trials": candidates,
        "search.pruner": pruner,
    }
    return prepare(load_config(None, asked), race=True)


def simulate(pruner: str, candidates: int) -> dict[str, Any]:
    """One search over fake workers to its end."""
    from fake_workers import FakeWorkers, Simulated

    from loraloom.pipeline import write_timer
    from loraloom.pipeline.drive import Driver
    from loraloom.pipeline.recorder import Recorder
    from loraloom.pipeline.run_log import RunLog
    from loraloom.pipeline.tune import SearchSource
    from loraloom.plan.search_space import search_space
    from loraloom.records import Score
    from loraloom.store.database import Database, default_url
    from loraloom.store.folder import RunFolder
    from loraloom.store.result import RunResult

    meters = {
        name: Meter() for name in ("pretended", "ask", "report", "run.json", "checkpoint", "index")
    }
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        prepared = prepared_request(home, pruner, candidates)
        folder = RunFolder.create(home, "run")
        folder.checkpoints.mkdir()
        curve = [0.1 * number for number in range(TRACE)]
        signals = dict.fromkeys(("steps", "losses", "norms", "clipped", "rates"), curve)
        course = Simulated(STEPS, EVALUATIONS, ROWS, diverging=0.02, signals=signals)
        workers = FakeWorkers([PACK_SIZE] * WORKERS, folder.checkpoints, course, seed=7)
        timers: Any = write_timer.WriteTimer
        timers.__init__ = partialmethod(timers.__init__, lambda: workers.now + time.process_time())
        result = RunResult("run", "tune", "running", "fake", prepared.task, "2026-01-01T00:00:00+00:00")
        log = RunLog(
            prepared, Recorder(folder, result, lambda event: None, {"validation": "rows"}), None
        )
        log.base_score, log.pack_size = Score("validation", {"loss": 9.0}), PACK_SIZE * WORKERS
        source = SearchSource(log, search_space(prepared.plan))
        driver = Driver(workers, log)
        for method in ("send", "next"):
            meters["pretended"].over(workers, method)
        meters["ask"].over(source, "ask")
        for method in ("scored", "verdicts", "ended"):
            meters["report"].over(source, method)
        meters["run.json"].over(folder, "write_result")
        meters["checkpoint"].over(log, "write_checkpoint")
        began = time.process_time()
        driver.run(source)
        spent = time.process_time() - began
        with Database(default_url(home)) as database:
            meters["index"].over(database, "record")
            database.record(log.recorder.gathered(), folder.path)
        told = {name: meter.told() for name, meter in meters.items()}
        scores = sum(1 for event in folder.events() if event.kind == "evaluated")
        return {
            "pruner": pruner,
            "candidates": len(log.recorder.records),
            "workers": WORKERS,
            "turns": workers.reports,
            "scores": scores,
            "virtual_minutes": round(workers.now / 60, 1),
            "run_json_mib": round(folder.result_path.stat().st_size / 2**20, 2),
            "driver_cpu_seconds": round(spent - told["pretended"]["seconds"], 1),
            "report_ms": round(1000 * told["report"]["seconds"] / scores, 3),
            **told,
        }


def measured(pruner: str, candidates: int) -> dict[str, Any]:
    """One case in a process of its own."""
    words = [
        sys.executable,
        str(Path(__file__).resolve()),
        "--candidates",
        str(candidates),
        "--case",
        pruner,
    ]
    told = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(told.splitlines()[-1])


def table(result: dict[str, Any]) -> str:
    """One line a pruner."""
    lines = [
        f"{'pruner':<8} {'driver CPU s':>12} {'ms a report':>12} {'ms a run.json':>14} {'ms an ask':>10}"
        f" {'turns':>7}"
    ]
    for row in result["cases"]:
        lines.append(
            f"{row['pruner']:<8} {row['driver_cpu_seconds']:>12.1f} {row['report_ms']:>12.2f} "
            f"{row['run.json']['mean_ms']:>14.1f} {row['ask']['mean_ms']:>10.2f} {row['turns']:>7}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--candidates", type=int, default=CANDIDATES)
    parser.add_argument("--case", metavar="PRUNER")
    given = parser.parse_args()
    if given.case:
        print(json.dumps(simulate(given.case, given.candidates)))
        return
    if not given.show:
        own = [
            sys.executable,
            str(Path(__file__).resolve()),
            "--candidates",
            str(given.candidates),
            "--case",
        ]
        told = [
            subprocess.run([*own, one], check=True, stdout=subprocess.PIPE, text=True).stdout
            for one in PRUNERS
        ]
        RESULT.write_text(
            json.dumps({"cases": [json.loads(one.splitlines()[-1]) for one in told]}, indent=1) + "\n",
            encoding="utf-8",
        )
    print(table(json.loads(RESULT.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
