"""Is the plan's learning rate good? Held-out accuracy of rates round it, packed over one base."""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any

import pairs
from runs import RATE, request

from loraloom.config.decode import load_config
from loraloom.pipeline.plan import plan
from loraloom.pipeline.tune import tune
from loraloom.store.folder import RunFolder

FACTORS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4)
SEEDS = (0, 1)
TRAIN, HELD_OUT = 240, 200
METRIC = "validation_reward_accuracy"
SHOWN = (METRIC, f"{METRIC}_se", "validation_loss", "validation_chosen_logratio")


def data(shared: Path, work: Path) -> dict[str, dict[str, str]]:
    """Files of each data set, as keys of a request."""
    intents = pairs.intents(shared, "train", TRAIN, 0), pairs.intents(shared, "validate", HELD_OUT, 1)
    whole = pairs.solutions(shared, TRAIN + HELD_OUT, 0)
    return {
        name: {
            "data.train": pairs.write(work / f"sweep-{name}-train.jsonl", both[0]),
            "data.validation": pairs.write(work / f"sweep-{name}-validation.jsonl", both[1]),
        }
        for name, both in {"intents": intents, "solutions": (whole[:TRAIN], whole[TRAIN:])}.items()
    }


def run_all(shared: Path, work: Path, seeds: tuple[int, ...] = SEEDS) -> list[dict[str, Any]]:
    """Sweep each data set, and hold the plan's rate against the best."""
    return [one_task(shared, work, name, files, seeds) for name, files in data(shared, work).items()]


def one_task(
    shared: Path, work: Path, name: str, files: dict[str, str], seeds: tuple[int, ...]
) -> dict[str, Any]:
    found: dict[float, list[dict[str, float]]] = defaultdict(list)
    started = time.process_time()
    planned = 0.0
    for seed in seeds:
        asked = request(shared, work, f"sweep {name} {seed}", {**files, "training.seed": seed})
        planned = float(plan(load_config(None, asked)).plan.values()[RATE])
        rates = [float(f"{planned * factor:.6g}") for factor in FACTORS]
        search = {
            "search.space": {RATE: rates},
            "search.sampler": "grid",
            "search.pruner": "none",
            "search.trials": len(rates),
            "search.seeds_for_finalists": 1,
            "search.history": "none",
            "limits.max_packed": len(rates),
            "diagnose.act": False,
        }
        tune(load_config(None, asked | search), lambda event: None)
        for trial in RunFolder.open(work / "runs" / asked["name"]).result().trials:
            found[float(trial.params.get(RATE, planned))].append(
                {key: trial.metrics[key] for key in SHOWN if key in trial.metrics}
            )
    table = [
        {
            "rate": rate,
            "times": rate / planned,
            "accuracy": fmean(one[METRIC] for one in found[rate]),
            "seeds": found[rate],
        }
        for rate in sorted(found)
    ]
    best = max(table, key=lambda row: row["accuracy"])
    own = min(table, key=lambda row: abs(row["times"] - 1))
    for row in table:
        print(f"{name} rate {row['rate']:.2e} ({row['times']:.3g}): {row['accuracy']:.3f}", flush=True)
    return {
        "task": name,
        "planned_rate": planned,
        "table": table,
        "best_rate": best["rate"],
        "points_below_best": 100 * (best["accuracy"] - own["accuracy"]),
        "cpu_seconds": round(time.process_time() - started, 1),
    }
