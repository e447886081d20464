"""What `loraloom plan` says of a training before it runs, beside what was measured of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from tempfile import TemporaryDirectory
from typing import Any

from loraloom.config.asked import AdapterConfig, Config, LimitsConfig, ModelConfig, TrainingConfig
from loraloom.data.rows import Encoded, Row
from loraloom.facts.data import data_facts
from loraloom.facts.device import device_facts
from loraloom.facts.model import ModelFacts, model_facts
from loraloom.plan.memory import forecast_memory
from loraloom.plan.planner import Facts, Plan, make_plan
from loraloom.plan.time import forecast_time
from steps.training import ALPHA, FAR, RANK, config_of


def plan_of(
    shape: str, dtype: str, packed: int, rows: Sequence[Row], validation: Sequence[Row], device: Any
) -> Plan:
    """The plan of `packed` candidates at batch 1 that have the device to themselves."""
    machine = device_facts(device)
    data = Encoded(tuple(rows), tuple(validation), (), (), "causal_lm", "made")
    asked = Config(
        model=ModelConfig(dtype=dtype),  # type: ignore[arg-type]
        adapter=AdapterConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", lora_dropout=0.0),
        training=TrainingConfig(
            per_device_train_batch_size=1,
            gradient_accumulation_steps=1,
            gradient_checkpointing=False,
            max_steps=FAR,
        ),
        # the base is there already
        limits=LimitsConfig(max_packed=packed, memory=f"{machine.total_bytes // 2**20}MiB"),
    )
    return make_plan(asked, Facts(facts_of(shape), data_facts(data), machine))


def forecast(plan: Plan, token_budget: int) -> dict[str, Any]:
    """Bytes that torch will hold on the device at most, and seconds of a tick, where
    passes have so many tokens."""
    size = plan.pack_size
    memory = forecast_memory(plan.case, replace(plan.shape, token_budget=token_budget))
    seconds = forecast_time(plan.case, trials=size, packed=size, token_budget=token_budget).parts
    return {
        "forecast_bytes": memory.value - memory.parts["runtime"],
        "forecast_parts": dict(memory.parts),
        "forecast_ms": 1e3 * (seconds["training"] + seconds["layers"]) / FAR,
    }


@cache
def facts_of(shape: str) -> ModelFacts:
    with TemporaryDirectory() as folder:
        config_of(shape).save_pretrained(folder)
        return model_facts(folder, task="causal_lm")
