"""Whether activations are recomputed in the backward pass: a third more time for much less memory."""

from __future__ import annotations

from loraloom.config.asked import Config
from loraloom.plan import engine
from loraloom.plan.basis import Decided, Facts, bytes_text, memory_budget
from loraloom.plan.memory import Shape, forecast_memory
from loraloom.plan.rules.batch import effective_batch
from loraloom.records import Advice

KEY = "training.gradient_checkpointing"
SOURCE = "arXiv:1604.06174"


def advise(facts: Facts, asked: Config, decided: Decided) -> Advice:
    batch, length = effective_batch(facts, asked), decided["data.max_length"].value
    budget = memory_budget(facts, asked)
    plain = forecast_memory(facts, decided, Shape(batch, length))
    if plain.high <= budget:
        reason = f"{batch} rows of {length:,} tokens take {bytes_text(plain.value)} of {bytes_text(budget)} without it"
        return Advice(False, reason, SOURCE, None, "B")
    if not engine.GRADIENT_CHECKPOINTING:
        reason = f"{bytes_text(plain.value)} do not fit into {bytes_text(budget)}; the packed trainer splits the batch instead"
        return Advice(False, reason, SOURCE, None, "M")
    less = forecast_memory(facts, decided, Shape(batch, length, checkpointing=True))
    reason = (
        f"{bytes_text(plain.value)} do not fit into {bytes_text(budget)}; with it {bytes_text(less.value)}, a third more time"
    )
    return Advice(True, reason, SOURCE, (False, True), "B")
