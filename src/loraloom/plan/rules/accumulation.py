"""How many micro-batches make one optimiser step: one, unless memory forces the batch to be split."""

from __future__ import annotations

from loraloom.config import names
from loraloom.plan.about import About
from loraloom.plan.case import DERIVED, Case
from loraloom.plan.rules.batch import effective_batch
from loraloom.records import Advice

KEY = names.GRADIENT_ACCUMULATION_STEPS
ABOUT = About(
    does="How many micro-batches make one optimiser step.",
    rule="One, unless memory splits the batch; then as many as give the same rows a step.",
    evidence="The sum of the parts is the gradient of the whole, so nothing but time changes.",
    tools={"transformers": "1", "Unsloth": "4 in its notebooks", "LLaMA-Factory": "8 in its examples"},
)


def advise(case: Case) -> Advice:
    micro = case.decided.micro_batch
    wanted = effective_batch(case)
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
