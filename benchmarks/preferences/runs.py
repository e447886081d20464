"""One preference run of the benchmark, through the pipeline that the command line uses."""

from __future__ import annotations

import time
from collections.abc import Mapping
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
