"""Is the plan's learning rate good? Held-out accuracy of rates round it, packed over one base.

The best of seven is also the luckiest of seven. So the best rate is chosen on the rows that each
candidate's best evaluation was chosen on, and it is compared with the plan's on others.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import pairs
from planted import EPOCHS, Source
from runs import by_rates

FACTORS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4)
SEEDS = (0, 1)
SOURCES = ((Source("intents", 240, 200), 400), (Source("solutions", 120, 100), 200))
"""Pairs to learn from and to choose by, and others to compare on."""
CHOSEN_BY, COMPARED_BY = "validation_reward_accuracy", "test_reward_accuracy"
SHOWN = (CHOSEN_BY, COMPARED_BY, f"{COMPARED_BY}_se", "validation_loss", "test_chosen_logratio")


def data(shared: Path, work: Path) -> dict[str, dict[str, str]]:
    """Files of each data set: train, validation, test."""
    return {
        source.name: {
            split: pairs.write(work / f"sweep-{source.name}-{split}.jsonl", rows)
            for split, rows in zip(
                ("train", "validation", "test"), source.rows(shared, beyond), strict=True
            )
        }
        for source, beyond in SOURCES
    }


def run_all(shared: Path, work: Path, seeds: tuple[int, ...] = SEEDS) -> list[dict[str, Any]]:
    """Sweep each data set, and hold the plan's rate against the best."""
    return [one_task(shared, work, name, files, seeds, {}) for name, files in data(shared, work).items()]


def run_one_pass(shared: Path, work: Path) -> list[dict[str, Any]]:
    """The same of intents with one pass, where the plan has three."""
    intents = data(shared, work)["intents"]
    return [one_task(shared, work, "intents", intents, SEEDS, {EPOCHS: 1})]


def one_task(
    shared: Path,
    work: Path,
    name: str,
    files: dict[str, str],
    seeds: tuple[int, ...],
    values: Mapping[str, Any],
) -> dict[str, Any]:
    found: dict[float, list[dict[str, float]]] = defaultdict(list)
    started = time.process_time()
    planned = 0.0
    for seed in seeds:
        own_values = {**values, "training.seed": seed}
        planned, trained = by_rates(shared, work, f"{name} {seed}", files, own_values, FACTORS)
        for rate, metrics in trained:
            found[rate].append({key: metrics[key] for key in SHOWN if key in metrics})
    table: list[dict[str, Any]] = [
        {
            "rate": rate,
            "times": rate / planned,
            "validation": fmean(one[CHOSEN_BY] for one in found[rate]),
            "test": fmean(one[COMPARED_BY] for one in found[rate]),
            "seeds": found[rate],
        }
        for rate in sorted(found)
    ]
    best = max(table, key=lambda row: row["validation"])
    own = min(table, key=lambda row: abs(row["times"] - 1))
    for row in table:
        shown = f"{row['validation']:.3f} {row['test']:.3f}"
        print(f"{name} rate {row['rate']:.2e} ({row['times']:.3g}): {shown}", flush=True)
    return {
        "task": name,
        "planned_rate": planned,
        "table": table,
        "rate_chosen_on_validation": best["rate"],
        "points_below_best": 100 * (best["test"] - own["test"]),
        "cpu_seconds": round(time.process_time() - started, 1),
    }
