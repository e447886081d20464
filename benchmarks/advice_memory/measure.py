"""One run of our engine in a process of its own: its peak memory as Linux counts it, and its time.

python measure.py '{"family": "llama", "rank": 16, ...}'      # a shape of shapes.py; prints one JSON document
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import transformers as tf
from shapes import Shape, config_of

from loraloom.config.asked import AdapterConfig, Config, LimitsConfig, ModelConfig, TrainingConfig
from loraloom.data.rows import Encoded, Row
from loraloom.evals.objective import objective_for
from loraloom.facts.data import data_facts
from loraloom.facts.device import device_facts
from loraloom.facts.model import ModelFacts, model_facts
from loraloom.lora.packed import PackedModel
from loraloom.plan.planner import Facts, Plan, candidate, make_plan
from loraloom.records import Task
from loraloom.train.pack import PackTrainer

AUTO: dict[str, Any] = {
    "causal_lm": tf.AutoModelForCausalLM,
    "seq_cls": tf.AutoModelForSequenceClassification,
    "seq2seq_lm": tf.AutoModelForSeq2SeqLM,
}
TICKS = 2
HEADS = {"bert": ("classifier",)}


def rows_of(task: Task, count: int, length: int, seed: int) -> tuple[Row, ...]:
    """Random rows, all of one length, wholly supervised."""
    draw = np.random.default_rng(seed)
    made: list[Row] = []
    for _ in range(count):
        ids = draw.integers(3, 1000, length).astype(np.int32)
        labels = ids.copy()
        if task == "causal_lm":
            labels[0] = -100
        made.append(Row(ids, draw.integers(0, 2, 1).astype(np.int32) if task == "seq_cls" else labels))
    return tuple(made)


def plan_of(shape: Shape, facts: ModelFacts, data: Encoded) -> Plan:
    """The plan of exactly this run."""
    asked = Config(
        model=ModelConfig(dtype=shape.dtype),  # type: ignore[arg-type]
        adapter=AdapterConfig(r=shape.rank, target_modules=shape.targets, lora_dropout=0.0),
        training=TrainingConfig(
            per_device_train_batch_size=shape.rows, gradient_checkpointing=shape.checkpointing or "auto",
            gradient_accumulation_steps=1, max_steps=100,
        ),
        limits=LimitsConfig(max_packed=shape.packed),
    )  # fmt: skip
    return make_plan(asked, Facts(facts, data_facts(data), device_facts("cpu")))


def measure(shape: Shape) -> dict[str, Any]:
    config, task = config_of(shape.family)
    names = ("no", "yes") if task == "seq_cls" else None
    data = Encoded(rows_of(task, 64, shape.length, 0), rows_of(task, 16, shape.length, 1), (), (), task, "made", names)
    with TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        facts = model_facts(folder, task=task, num_labels=2 if names else None)
    plan = plan_of(shape, facts, data)
    forecast = plan.forecast["memory"]
    before = _status("VmRSS")
    values = plan.values()
    torch.manual_seed(0)
    model = AUTO[task].from_config(
        config, attn_implementation=values["model.attn_implementation"], dtype=getattr(torch, shape.dtype)
    )
    model.eval()
    peak = _trained(shape, plan, model, data)
    return {
        "name": shape.name, "shape": asdict(shape), "parameters": facts.parameters,
        "forecast_bytes": round(forecast.value), "parts": {name: round(size) for name, size in forecast.parts.items()},
        "before_bytes": before, **peak,
    }  # fmt: skip


def _trained(shape: Shape, plan: Plan, model: Any, data: Encoded) -> dict[str, Any]:
    objective = objective_for(data.task, model, prepack=plan.prepack)
    packed = PackedModel(model, fresh_modules=HEADS.get(shape.family, ()), prepack=plan.prepack)
    trainer = PackTrainer(
        packed, data.train, objective, task=data.task, pad_id=0, validation=data.validation, token_budget=plan.token_budget,
        checkpointing=shape.checkpointing,
    )  # fmt: skip
    # What building the model has left behind is no part of training it.
    ctypes.CDLL(None).malloc_trim(0)
    loaded = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    names = [f"t{number}" for number in range(shape.packed)]
    for name in names:
        trainer.join(candidate(plan, name, {}))
    seconds: list[float] = []
    for _ in range(TICKS):
        started = time.perf_counter()
        trainer.tick()
        seconds.append(time.perf_counter() - started)
    training = _status("VmHWM")
    trainer.evaluate(names)
    return {
        "loaded_bytes": loaded, "training_bytes": training, "measured_bytes": _status("VmHWM"),
        "noted_bytes": max(seat.peak_bytes for seat in trainer.seats.values()), "tick_seconds": seconds,
    }  # fmt: skip


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


if __name__ == "__main__":
    print(json.dumps(measure(Shape(**json.loads(sys.argv[1])))))
