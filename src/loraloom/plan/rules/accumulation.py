"""How many micro-batches make one optimiser step: one, unless memory forces the batch to be split."""

from __future__ import annotations

from loraloom.config.asked import Config
from loraloom.plan.about import About
from loraloom.plan.inputs import DERIVED, Decided, Facts
from loraloom.plan.rules.batch import effective_batch
from loraloom.records import Advice

KEY = "training.gradient_accumulation_steps"
ABOUT = About(
    does="How many micro-batches make one optimiser step.",
    rule="One, unless memory splits the batch; then as many as give the same rows a step.",
    evidence="The sum of the parts is the gradient of the whole, so nothing but time changes.",
    tools={"transformers": "1", "Unsloth": "4 in its notebooks", "LLaMA-Factory": "8 in its examples"},
)


def advise(facts: Facts, asked: Config, decided: Decided) -> Advice:
    micro = decided["training.per_device_train_batch_size"].value
    wanted = effective_batch(facts, asked)
    value = max(1, wanted // micro)
    if value == 1:
        return Advice(1, f"the whole step of {micro} rows fits at once", DERIVED, (1, micro), "M")
    return Advice(
        value,
        f"{value} x {micro} rows make the step of {wanted}, with less memory and the same gradient",
        DERIVED,
        (1, wanted),
        "M",
    )
