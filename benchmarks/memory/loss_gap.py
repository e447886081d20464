"""What a base in few bits costs in loss: one task that training hardly changes and one that it changes
much, five seeds, the same rows and seeds for every way to hold the base.

    python benchmarks/memory/loss_gap.py SHARED

prints one JSON document.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from loraloom.config.decode import load_config
from loraloom.pipeline.prepare import prepare
from loraloom.pipeline.workbench import Workbench
from loraloom.plan.planner import candidate
from loraloom.records import Score
from loraloom.search.compare import CONFIDENCE, average, mean_cost, seeds_difference, standard_error

MODEL = "models/tinychat-5M"
DENSE = "bf16"
WAYS: Mapping[str, Mapping[str, Any]] = {
    DENSE: {},
    "nf4": {"model.quantization": "nf4"},
    "nf4, LoftQ": {"model.quantization": "nf4", "adapter.init_lora_weights": "loftq"},
    "int8": {"model.quantization": "int8"},
}


@dataclass(frozen=True)
class Task:
    """Rows of a file, and how they are trained on.

    Attributes:
        shuffled: the file is in an order of its own; of its rows the texts alone are taken.
        rows: to train on, to validate on and to test on.
        rate: None for the plan's own.
    """

    data: str
    shuffled: bool
    rows: tuple[int, int, int]
    length: int
    batch: int
    rate: float | None = None


GSM8K = Task("data/gsm8k/test.jsonl", False, (160, 40, 200), 256, 4)
REVIEWS = Task("data/rotten_tomatoes/train.jsonl", True, (640, 40, 300), 64, 8)
HIGHER = 3e-3
"""Two and a half times the plan's rate."""
TASKS = (GSM8K, REVIEWS, replace(REVIEWS, rate=HIGHER))
SEEDS = 5
QUICK_ROWS, QUICK_SEEDS = (8, 4, 8), 2


def rows_of(shared: Path, work: Path, task: Task) -> dict[str, str]:
    """Splits, one after another, by config key."""
    lines = [line for line in (shared / task.data).read_text().split("\n") if line]
    if task.shuffled:
        lines = [json.dumps({"text": json.loads(line)["text"]}) for line in lines]
        random.Random(0).shuffle(lines)
    found: dict[str, str] = {}
    for split, count in zip(("train", "validation", "test"), task.rows, strict=True):
        own, lines = lines[:count], lines[count:]
        path = work / f"{split}.jsonl"
        path.write_text("\n".join(own) + "\n")
        found[f"data.{split}"] = str(path)
    return found


def trained(values: Mapping[str, Any], seeds: int) -> tuple[Score, list[Score], float]:
    """The bare base and each seed at its last step, both on the test rows, and the rate of the plan."""
    prepared = prepare(load_config(None, values))
    bench, test = Workbench(prepared), prepared.data.test
    bare = bench.score_base(test, "test")
    names = [f"t{seed}" for seed in range(seeds)]
    for seed, name in enumerate(names):
        bench.trainer.join(candidate(prepared.plan, name, {}, seed_offset=seed))
    scores: dict[str, Score] = {}
    while bench.trainer.seats:
        bench.trainer.tick()
        ended = bench.trainer.finished()
        if ended:
            scores |= bench.trainer.evaluate(ended, "test", test)
            for name in ended:
                bench.trainer.leave(name)
    return bare, [scores[name] for name in names], prepared.plan.values()["training.learning_rate"]


def line(name: str, bare: Score, scores: Sequence[Score], dense: Sequence[Score]) -> dict[str, Any]:
    """Loss in nats a token, and what it has over the dense base, seed by seed and row by row."""
    losses = [mean_cost(score) for score in scores]
    found: dict[str, Any] = {
        "name": name,
        "bare": mean_cost(bare),
        "losses": losses,
        "loss": sum(losses) / len(losses),
        "half_width": CONFIDENCE * standard_error(average(scores)),
    }
    if name != DENSE:
        gap = seeds_difference(scores, dense)
        found |= {"gap": gap.mean, "gap_half_width": CONFIDENCE * gap.se}
    return found


def measure(shared: Path, task: Task, seeds: int) -> dict[str, Any]:
    with TemporaryDirectory(prefix="loss-gap-") as work:
        asked: dict[str, Any] = {
            "model.name_or_path": str(shared / MODEL),
            "model.dtype": "bfloat16",
            **rows_of(shared, Path(work), task),
            "data.max_length": task.length,
            "adapter.r": 16,
            "adapter.target_modules": "all-linear",
            "adapter.lora_dropout": 0.0,
            "training.num_train_epochs": 1,
            "training.per_device_train_batch_size": task.batch,
            "training.gradient_accumulation_steps": 1,
            "limits.max_packed": seeds,
        }
        if task.rate is not None:
            asked["training.learning_rate"] = task.rate
        ways = {name: trained({**asked, **values}, seeds) for name, values in WAYS.items()}
    dense = ways[DENSE][1]
    train, _, test = task.rows
    return {
        "data": task.data,
        "model": MODEL,
        "rows": {"train": train, "test": test},
        "seeds": seeds,
        "rate": ways[DENSE][2],
        "ways": [line(name, bare, scores, dense) for name, (bare, scores, _) in ways.items()],
    }


def main(words: list[str]) -> list[dict[str, Any]]:
    shared, quick = Path(words[0]), "--quick" in words
    tasks = [replace(task, rows=QUICK_ROWS) for task in TASKS[::2]] if quick else TASKS
    return [measure(shared, task, QUICK_SEEDS if quick else SEEDS) for task in tasks]


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))
