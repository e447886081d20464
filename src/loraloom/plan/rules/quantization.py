"""Whether the frozen base is held in fewer bits: the last step before a smaller micro-batch."""

from __future__ import annotations

from loraloom.config.asked import Config
from loraloom.plan import engine
from loraloom.plan.basis import Decided, Facts, bytes_text, memory_budget
from loraloom.plan.memory import Shape, forecast_memory
from loraloom.records import Advice

KEY = "model.quantization"
SOURCE = "arXiv:2305.14314"


def advise(facts: Facts, asked: Config, decided: Decided) -> Advice:
    length, checkpointing = decided["data.max_length"].value, decided["training.gradient_checkpointing"].value
    budget = memory_budget(facts, asked)
    smallest = forecast_memory(facts, decided, Shape(1, length, checkpointing=checkpointing))
    if smallest.high <= budget or "nf4" not in engine.QUANTIZATION or facts.device.kind != "cuda":
        weights = bytes_text(smallest.parts["weights"])
        reason = f"the weights take {weights} of {bytes_text(budget)} as they are, and unquantised layers are faster"
        return Advice("none", reason, SOURCE, None, "B")
    reason = f"{bytes_text(smallest.value)} do not fit into {bytes_text(budget)}; NF4 scores as bf16 does (MMLU 53.1, 53.0)"
    return Advice("nf4", reason, SOURCE, ("none", "nf4"), "B")
