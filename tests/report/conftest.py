"""A finished run on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from finished import result_of, trial

from loraloom.records import Advice, Event, Finding
from loraloom.store.folder import RunFolder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """t001 won, t000 is the plan's own setting, t002 was pruned, t003 diverged."""
    folder = RunFolder.create(tmp_path / "runs", "first")
    folder.write_config({"model": {"name_or_path": "tiny/model"}})
    folder.write_resolved(
        {
            "training.learning_rate": Advice(1e-4, "rank 16 at batch 8", "arXiv:0000.00000"),
            "adapter.r": Advice(16, "4,000 rows", "measured"),
        }
    )
    losses = {"t000": 1.6, "t001": 1.2, "t002": 2.0, "t003": 900.0}
    for name, loss in losses.items():
        folder.append(Event("trial_started", name, 0, 0.0, {"planned_steps": 40}))
        for step in range(1, 41 if loss < 2 else 21):
            folder.append(
                Event("step", name, step, step * 0.1, {"loss": loss + 1 / step, "learning_rate": 1e-4})
            )
            if step % 10 == 0:
                data = {
                    "split": "validation",
                    "progress": step / 40,
                    "epoch": step / 20,
                    "loss": loss + 1 / step,
                    "loss_se": 0.02,
                }
                folder.append(Event("evaluated", name, step, step * 0.1, data))
    trials = [
        trial("t000", loss=1.625),
        trial("t001", loss=1.225),
        trial("t002", "pruned", 2.05, reason="too far behind t001", steps=20),
        trial("t003", "diverged", 900.05, reason="loss is 360 times that of the base", steps=20),
    ]
    finding = Finding(
        "rate_too_high",
        "warning",
        "t003 diverged",
        "loss 900 after 20 steps",
        "keep the rate below 1e-3",
    )
    folder.write_result(
        result_of(
            *trials, best="t001", default="t000", findings=[finding], environment={"torch": "2.13.0"}
        )
    )
    return folder
