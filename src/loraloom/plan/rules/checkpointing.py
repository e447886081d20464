"""Whether activations are recomputed in the backward pass: a third more time for much less memory."""

from __future__ import annotations

from loraloom.config import names
from loraloom.plan import engine
from loraloom.plan.about import About
from loraloom.plan.case import Case
from loraloom.plan.needs import need
from loraloom.plan.numbers import bytes_text
from loraloom.plan.rules.batch import effective_batch
from loraloom.plan.shape import Shape
from loraloom.records import Advice

KEY = names.GRADIENT_CHECKPOINTING
ABOUT = About(
    does="Activations are computed again on the way back instead of being kept.",
    rule="Only where the step does not fit without it, as the first rung of the memory ladder.",
    evidence="About a third more time for activations of one layer at a time (arXiv:1604.06174).",
    tools={"TRL": "true", "Unsloth": "its own variant"},
)
SOURCE = "arXiv:1604.06174"


def advise(case: Case) -> Advice:
    length = case.decided.length
    # More rows than fill a pass are split anyway, and cost nothing: they are no reason
    # to compute anything twice.
    batch = min(effective_batch(case), max(1, engine.TOKEN_BUDGET[case.facts.device.kind] // length))
    budget = case.memory_budget
    plain = need(case, Shape(batch, length))
    if plain.high <= budget:
        rows = "1 row takes" if batch == 1 else f"{batch} rows take"
        reason = (
            f"{rows} {bytes_text(plain.value)} of {bytes_text(budget)} without it, at {length:,} tokens"
        )
        return Advice(
            False, reason, SOURCE, (False, True) if engine.GRADIENT_CHECKPOINTING else (False,), "B"
        )
    if not engine.GRADIENT_CHECKPOINTING:
        reason = (
            f"{bytes_text(plain.value)} do not fit into {bytes_text(budget)}; the packed trainer splits"
            " the batch instead"
        )
        return Advice(False, reason, SOURCE, (False,), "M")
    less = need(case, Shape(batch, length, checkpointing=True))
    reason = (
        f"{bytes_text(plain.value)} do not fit into {bytes_text(budget)}; with it"
        f" {bytes_text(less.value)}, a third more time"
    )
    return Advice(True, reason, SOURCE, (False, True), "B")
