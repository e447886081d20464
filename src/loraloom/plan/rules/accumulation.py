"""How many micro-batches make one optimiser step: one, unless memory forces the batch to be split."""

from __future__ import annotations

from loraloom.config.asked import Config
from loraloom.plan.basis import DERIVED, Decided, Facts
from loraloom.plan.rules.batch import effective_batch
from loraloom.records import Advice

KEY = "training.gradient_accumulation_steps"


def advise(facts: Facts, asked: Config, decided: Decided) -> Advice:
    micro = decided["training.per_device_train_batch_size"].value
    wanted = effective_batch(facts, asked)
    value = max(1, wanted // micro)
    if value == 1:
        return Advice(1, f"the whole step of {micro} rows fits at once", DERIVED, None, "M")
    return Advice(
        value, f"{value} x {micro} rows make the step of {wanted}, with less memory and the same gradient", DERIVED, None, "M"
    )
