"""A run that grows as a test says: what its driver would write, without a model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loraloom.records import Event, Trial
from loraloom.store.folder import RunFolder
from loraloom.store.result import RunResult

SETTINGS = {
    "adapter.r": 16,
    "adapter.lora_alpha": 32,
    "adapter.target_modules": "all-linear",
    "training.learning_rate": 2e-4,
    "training.per_device_train_batch_size": 8,
}
PLANNED = 40
FORECAST = {
    "memory": {"weights_bytes": 2**29, "total_bytes": 2**30, "low_bytes": 2**29, "high_bytes": 2**31},
    "time": {"total_seconds": 60.0, "low_seconds": 30.0, "high_seconds": 120.0},
}


class GrowingRun:
    """A run folder with a driver that writes only what it is told to.

    Attributes:
        trials: what run.json would say of each candidate.
    """

    def __init__(self, root: Path, name: str = "first") -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.folder = RunFolder.create(root, name)
        self.folder.lock()
        self.folder.write_config({"model": {"name_or_path": "tiny/model"}})
        self.seconds = 0.0
        self.trials: dict[str, Trial] = {}
        self.emit(
            "run_started",
            verb="tune",
            model="tiny/model",
            task="causal_lm",
            started_at="2025-01-01T00:00:00+00:00",
            metric="validation_loss",
            direction="minimize",
            base_parameters=1_000_000,
            default="t000",
        )
        self.emit("forecast", **FORECAST)
        self.emit("evaluated", split="validation", loss=2.5, loss_se=0.03)

    def emit(self, kind: str, trial: str | None = None, step: int | None = None, **data: Any) -> None:
        """One line of events.jsonl, a tenth of a second later."""
        self.seconds = round(self.seconds + 0.1, 3)
        self.folder.append(Event(kind, trial, step, self.seconds, data))

    def start(self, trial: str, worker: str | None = None, **settings: Any) -> None:
        params: Mapping[str, Any] = settings or {"training.learning_rate": 2e-4}
        all_settings = SETTINGS | dict(params)
        self.trials[trial] = Trial(
            trial, "running", params, planned_steps=PLANNED, settings=all_settings
        )
        of = {"worker": worker} if worker else {}
        self.emit(
            "trial_started", trial, params=params, planned_steps=PLANNED, settings=all_settings, **of
        )

    def step(self, trial: str, step: int, loss: float | None = None) -> None:
        told = 2.0 * math.exp(-step / PLANNED) if loss is None else loss
        self.emit("step", trial, step, loss=told, epoch=step / PLANNED, planned_steps=PLANNED)

    def score(self, trial: str, step: int, loss: float, error: float = 0.02) -> None:
        self.emit(
            "evaluated",
            trial,
            step,
            split="validation",
            progress=step / PLANNED,
            epoch=step / PLANNED,
            loss=loss,
            loss_se=error,
        )

    def end(self, trial: str, status: Any = "completed", step: int = PLANNED, reason: str = "") -> None:
        self.emit(status, trial, step, reason=reason or None)

    def result(self, **fields: Any) -> RunResult:
        """Write run.json."""
        told = RunResult(
            **{
                "name": self.folder.name,
                "verb": "tune",
                "status": "running",
                "model": "tiny/model",
                "task": "causal_lm",
                "started_at": "2025-01-01T00:00:00+00:00",
                "seconds": self.seconds,
                "baseline": {"validation_loss": 2.5, "validation_loss_se": 0.03},
                "default": "t000",
                "trials": list(self.trials.values()),
                **fields,
            }
        )
        self.folder.write_result(told)
        return told

    def close(self) -> None:
        """Its driver is gone."""
        self.folder.unlock()
