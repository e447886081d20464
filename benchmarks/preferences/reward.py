"""A reward model on real pairs: how many it ranks rightly, by rates round the plan's, and which of loss
and accuracy tells two candidates apart.

    python benchmarks/preferences/reward.py --shared ../shared
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from itertools import combinations
from pathlib import Path
from statistics import fmean, median
from typing import Any

import pairs
import torch
from runs import by_rates

FACTORS = (1 / 8, 1 / 4, 1 / 2, 1, 2, 4)
SEEDS = (0, 1)
TRAIN, HELD_OUT, TEST = 600, 200, 400
SHOWN = ("loss", "loss_se", "reward_accuracy", "reward_accuracy_se", "reward_margin")


def splits(shared: Path, work: Path) -> dict[str, str]:
    """What somebody asks a device for: the right intent against another one. None of its requests is in
    two of the files."""
    held_out = pairs.intents(shared, "validate", HELD_OUT + TEST, 1)
    rows = {
        "train": pairs.intents(shared, "train", TRAIN, 0),
        "validation": held_out[:HELD_OUT],
        "test": held_out[HELD_OUT:],
    }
    return {name: pairs.write(work / f"{name}.jsonl", own) for name, own in rows.items()}


def sweep(shared: Path, work: Path, files: dict[str, str], seed: int) -> list[dict[str, Any]]:
    """The test of each rate, all trained in one pack."""
    values = {"training.seed": seed, "task": "reward"}
    planned, trained = by_rates(shared, work, f"reward {seed}", files, values, FACTORS)
    found: list[dict[str, Any]] = []
    for rate, metrics in trained:
        own = {name: metrics[f"test_{name}"] for name in SHOWN}
        found.append({"seed": seed, "rate": rate, "times": rate / planned, **own})
        print({key: f"{value:.4g}" for key, value in found[-1].items()}, flush=True)
    return found


def apart(found: list[dict[str, Any]], metric: str) -> float:
    """By how many standard errors two candidates of one seed differ: the median over all two."""
    return median(
        abs(one[metric] - other[metric]) / math.hypot(one[f"{metric}_se"], other[f"{metric}_se"])
        for one, other in combinations(found, 2)
        if one["seed"] == other["seed"]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("reward.json"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        files = splits(asked.shared, work)
        found = [one for seed in SEEDS for one in sweep(asked.shared, work, files, seed)]
    means = [
        {
            "times": times,
            **{name: fmean(one[name] for one in found if one["times"] == times) for name in SHOWN},
        }
        for times in sorted({one["times"] for one in found})
    ]
    said = {
        "pairs": {"train": TRAIN, "validation": HELD_OUT, "test": TEST},
        "by_rate": means,
        "standard_errors_apart": {name: apart(found, name) for name in ("loss", "reward_accuracy")},
        "runs": found,
        "cpu_seconds": round(time.process_time() - started, 1),
    }
    asked.out.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
