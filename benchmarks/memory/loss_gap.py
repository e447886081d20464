"""What a base in few bits costs in loss: real chat rows, five seeds, the same rows and seeds for every
way to hold the base.

    python benchmarks/memory/loss_gap.py SHARED

prints one JSON document.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from loraloom.config.decode import load_config
from loraloom.pipeline.prepare import prepare
from loraloom.pipeline.workbench import Workbench
from loraloom.plan.planner import candidate
from loraloom.records import Score
from loraloom.search.compare import CONFIDENCE, average, mean_cost, seeds_difference, standard_error

MODEL, DATA = "models/tinychat-5M", "data/gsm8k/test.jsonl"
DENSE = "bf16"
WAYS: Mapping[str, Mapping[str, Any]] = {
    DENSE: {},
    "nf4": {"model.quantization": "nf4"},
    "nf4, LoftQ": {"model.quantization": "nf4", "adapter.init_lora_weights": "loftq"},
    "int8": {"model.quantization": "int8"},
}


@dataclass(frozen=True)
class Size:
    """Rows to train on, to validate on and to test on, and seeds."""

    train: int
    validation: int
    test: int
    seeds: int


FULL, QUICK = Size(160, 40, 200, 5), Size(8, 4, 8, 2)


def rows_of(shared: Path, work: Path, size: Size) -> dict[str, str]:
    """Splits of the first rows, in their order, by config key."""
    lines = (shared / DATA).read_text().splitlines()
    found: dict[str, str] = {}
    for split in ("train", "validation", "test"):
        own, lines = lines[: getattr(size, split)], lines[getattr(size, split) :]
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


def measure(shared: Path, size: Size) -> dict[str, Any]:
    with TemporaryDirectory(prefix="loss-gap-") as work:
        asked: dict[str, Any] = {
            "model.name_or_path": str(shared / MODEL),
            "model.dtype": "bfloat16",
            **rows_of(shared, Path(work), size),
            "data.max_length": 256,
            "adapter.r": 16,
            "adapter.target_modules": "all-linear",
            "adapter.lora_dropout": 0.0,
            "training.num_train_epochs": 1,
            "training.per_device_train_batch_size": 4,
            "training.gradient_accumulation_steps": 1,
            "limits.max_packed": size.seeds,
        }
        ways = {name: trained({**asked, **values}, size.seeds) for name, values in WAYS.items()}
    dense = ways[DENSE][1]
    return {
        "data": DATA,
        "model": MODEL,
        "rows": {"train": size.train, "test": size.test},
        "seeds": size.seeds,
        "rate": ways[DENSE][2],
        "ways": [line(name, bare, scores, dense) for name, (bare, scores, _) in ways.items()],
    }


def main(words: list[str]) -> dict[str, Any]:
    return measure(Path(words[0]), QUICK if "--quick" in words else FULL)


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))
