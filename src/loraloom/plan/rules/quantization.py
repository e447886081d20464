"""Whether the frozen base is held in fewer bits: the last step before a smaller micro-batch."""

from __future__ import annotations

from loraloom.config import names
from loraloom.plan import engine
from loraloom.plan.about import About
from loraloom.plan.case import Case
from loraloom.plan.needs import need, quantises, streams
from loraloom.plan.numbers import bytes_text
from loraloom.plan.shape import Shape
from loraloom.records import Advice

KEY = names.QUANTIZATION
ABOUT = About(
    does="The frozen base in fewer bits.",
    rule=(
        "None while one row at a time fits in 16 bits; else NF4 with double quantisation where device"
        " and engine have it. Q4_K_M is a format of GGUF files: to ship with, not to train in."
    ),
    evidence=(
        "Mean MMLU: bf16 53.0, NF4 with double quantisation 53.1, FP4 52.2 (arXiv:2305.14314). The step"
        " takes about 50% longer (litgpt measured 56%)."
    ),
    tools={"PEFT": "none", "Unsloth": "4 bits in its notebooks"},
)
SOURCE = "arXiv:2305.14314"


def advise(case: Case) -> Advice:
    length, checkpointing = case.decided.length, case.decided.checkpointing
    budget = case.memory_budget
    smallest = need(case, Shape(1, length, checkpointing=checkpointing))
    if smallest.high > budget and _stays_in_files(case):
        reason = (
            f"{bytes_text(smallest.value)} do not fit into {bytes_text(budget)}, nor do four bits: the"
            " weights stay in their files, as they are stored"
        )
        return Advice("none", reason, SOURCE, ("none", *engine.QUANTIZATION), "M")
    if smallest.high <= budget or not quantises(case):
        weights = bytes_text(smallest.parts["weights"])
        reason = (
            f"the weights take {weights} of {bytes_text(budget)} as they are, and unquantised layers are"
            " faster"
        )
        return Advice("none", reason, SOURCE, ("none", *engine.QUANTIZATION), "B")
    reason = (
        f"{bytes_text(smallest.value)} do not fit into {bytes_text(budget)}; NF4 scores as bf16 does"
        " (MMLU 53.1, 53.0)"
    )
    return Advice("nf4", reason, SOURCE, ("none", "nf4"), "B")


def _stays_in_files(case: Case) -> bool:
    """Whether a CPU is to read the base from its files, which hold no codes."""
    if case.facts.device.kind != "cpu" or not streams(case):
        return False
    if case.asked.model.streaming != "auto":
        return case.asked.model.streaming
    coded = Shape(1, case.decided.length, checkpointing=case.decided.checkpointing, quantization="nf4")
    return not quantises(case) or need(case, coded).high > case.memory_budget
