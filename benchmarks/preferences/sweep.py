"""Is the plan's learning rate good? Held-out accuracy of rates round it, packed over one base.

The best of seven is also the luckiest of seven. So the best rate is chosen on the rows that each
candidate's best evaluation was chosen on, and it is compared with the plan's on others.
"""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any

import pairs
from planted import Source
from runs import RATE, request, tested

from loraloom.config.decode import load_config
from loraloom.pipeline.plan import plan
from loraloom.pipeline.tune import tune
from loraloom.store.folder import RunFolder

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
    return [one_task(shared, work, name, files, seeds) for name, files in data(shared, work).items()]


def one_task(
    shared: Path, work: Path, name: str, files: dict[str, str], seeds: tuple[int, ...]
) -> dict[str, Any]:
    found: dict[float, list[dict[str, float]]] = defaultdict(list)
    started = time.process_time()
    planned = 0.0
    for seed in seeds:
        learnt = {"data.train": files["train"], "data.validation": files["validation"]}
        asked = request(shared, work, f"sweep {name} {seed}", {**learnt, "training.seed": seed})
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
        folder = RunFolder.open(work / "runs" / asked["name"])
        for trial in folder.result().trials:
            assert trial.adapter, "each of them is trained to its end"
            metrics = {**trial.metrics, **tested(folder.path / trial.adapter, files["test"])}
            found[float(trial.params.get(RATE, planned))].append(
                {key: metrics[key] for key in SHOWN if key in metrics}
            )
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
