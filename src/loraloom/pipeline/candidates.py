"""From the plan and what was asked for to a job: a candidate with all of its settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from loraloom.config import names
from loraloom.lora.targets import short_label
from loraloom.pipeline.job import Job
from loraloom.pipeline.prepare import Prepared
from loraloom.plan.planner import candidate
from loraloom.records import Candidate

SECTIONS = ("adapter", "training", "preference")
"""Of the keys, those that candidates may differ in."""


def job(
    prepared: Prepared,
    trial: str,
    params: Mapping[str, Any],
    *,
    seed_offset: int = 0,
    role: str = "sampled",
) -> Job:
    """A candidate of the plan's settings with `params` over them."""
    made = candidate(prepared.plan, trial, params, seed_offset=seed_offset)
    return Job(made, settings_of(made, {**prepared.plan.values(), **params}, prepared), role)


def settings_of(made: Candidate, values: Mapping[str, Any], prepared: Prepared) -> dict[str, object]:
    """Every setting of a candidate by dotted key, as tables and run.json show it."""
    adapter = asdict(made.adapter)
    training = asdict(made.training)
    shown = {key: value for key, value in values.items() if key.split(".")[0] in SECTIONS}
    shown |= {f"adapter.{key}": value for key, value in adapter.items() if f"adapter.{key}" in shown}
    shown |= {f"training.{key}": value for key, value in training.items() if f"training.{key}" in shown}
    shown[names.TARGET_MODULES] = short_label(made.adapter.target_modules, prepared.facts.model.linears)
    shown[names.MODULES_TO_SAVE] = list(made.adapter.modules_to_save)
    shown[names.SEED] = made.training.seed
    if prepared.replay:
        shown[names.REPLAY_SHARE] = made.training.replay_share
    return shown
