"""Preference runs of the benchmark, through the pipeline that the command line uses."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loraloom.config.decode import load_config
from loraloom.diagnose.order import ranked
from loraloom.errors import RunError
from loraloom.pipeline.evaluate import evaluate
from loraloom.pipeline.plan import plan
from loraloom.pipeline.train import train
from loraloom.pipeline.tune import tune
from loraloom.store.folder import RunFolder

RATE = "training.learning_rate"
Values = dict[str, Any]


@dataclass(frozen=True)
class Done:
    """What a run came to."""

    folder: Path
    findings: list[dict[str, Any]]
    metrics: dict[str, float]
    cpu_seconds: float


def request(shared: Path, work: Path, name: str, values: Mapping[str, Any]) -> Values:
    """A request for a run of this name."""
    return {
        "model.name_or_path": str(shared / "models" / "tinychat-5M"),
        "output_dir": str(work / "runs"),
        "name": name.replace(" ", "-").replace(",", "").replace("/", "per"),
        **values,
    }


def train_one(
    shared: Path, work: Path, name: str, values: Mapping[str, Any], times: Mapping[str, float]
) -> Done:
    """`loraloom train`.

    Args:
        times: what the plan's own values of these keys are multiplied by.
    """
    asked = request(shared, work, name, values)
    if times:
        decided = plan(load_config(None, asked)).plan.values()
        asked |= {key: decided[key] * factor for key, factor in times.items()}
    started = time.process_time()
    with suppress(RunError):  # of a run that failed there are findings too
        train(load_config(None, asked), lambda event: None)
    folder = work / "runs" / asked["name"]
    result = RunFolder.open(folder).result()
    found = ranked([*result.findings, *(one for trial in result.trials for one in trial.findings)])
    metrics = dict(result.trials[0].metrics) if result.trials else {}
    spent = round(time.process_time() - started, 1)
    return Done(folder, [asdict(one) for one in found], metrics, spent)


def tested(adapter: Path, rows: str) -> dict[str, float]:
    """Metrics of an adapter, or of a run's best one, on a file of rows."""
    return evaluate(load_config(None, {"data.test": rows}), str(adapter))["metrics"]


def by_rates(
    shared: Path,
    work: Path,
    name: str,
    files: Mapping[str, str],
    values: Mapping[str, Any],
    factors: Sequence[float],
) -> tuple[float, list[tuple[float, dict[str, float]]]]:
    """The plan's own rate; and of rates round it, trained in one pack and none pruned, the metrics of
    each on validation and test.

    Args:
        files: of train, validation and test.
        factors: what the plan's rate is multiplied by.
    """
    learnt = {"data.train": files["train"], "data.validation": files["validation"]}
    asked = request(shared, work, name, {**learnt, **values})
    planned = float(plan(load_config(None, asked)).plan.values()[RATE])
    rates = [float(f"{planned * factor:.6g}") for factor in factors]
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
    found: list[tuple[float, dict[str, float]]] = []
    for trial in folder.result().trials:
        assert trial.adapter, "each of them is trained to its end"
        metrics = {**trial.metrics, **tested(folder.path / trial.adapter, files["test"])}
        found.append((float(trial.params.get(RATE, planned)), metrics))
    return planned, found
