"""Candidates and results made by hand, for the tests of the table and the page."""

from __future__ import annotations

from typing import Any

from loraloom.records import Trial
from loraloom.store.result import RunResult


def trial(trial_id: str, status: Any = "completed", loss: float = 1.5, **changes: Any) -> Trial:
    """A candidate of rank 16 with everything that a table shows."""
    settings = {
        "adapter.r": 16,
        "adapter.lora_alpha": 32.0,
        "adapter.target_modules": "all-linear",
        "training.learning_rate": 2e-4,
        "training.per_device_train_batch_size": 8,
    }
    values: dict[str, Any] = {
        "params": {"training.learning_rate": 2e-4},
        "metrics": {"validation_loss": loss, "validation_loss_se": 0.02},
        "seconds": 48.0,
        "steps": 40,
        "planned_steps": 40,
        "peak_bytes": 2**30,
        "trainable_parameters": 50_000,
        "settings": settings,
    }
    return Trial(trial_id, status, **(values | changes))


def result_of(*trials: Trial, **changes: Any) -> RunResult:
    """A finished `tune` with these candidates."""
    values: dict[str, Any] = {
        "name": "first",
        "verb": "tune",
        "status": "completed",
        "model": "tiny/model",
        "task": "causal_lm",
        "started_at": "2025-01-01T00:00:00+00:00",
        "baseline": {"validation_loss": 2.5, "validation_loss_se": 0.03},
        "base_parameters": 1_000_000,
        "trials": list(trials),
    }
    return RunResult(**(values | changes))
