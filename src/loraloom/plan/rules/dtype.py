"""How the frozen weights are stored: as they are computed."""

from __future__ import annotations

from loraloom.config import names
from loraloom.plan.about import About
from loraloom.plan.case import DERIVED, Case
from loraloom.records import Advice

KEY = names.DTYPE
ABOUT = About(
    does="The format in which the frozen weights are held in memory.",
    rule="The one in which they are computed.",
    evidence="A wider copy takes memory and changes no product.",
    tools={"transformers": "as the checkpoint is stored"},
)
OF_PRECISION = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "fp64": "float64"}


def advise(case: Case) -> Advice:
    precision = case.decided.precision
    model = case.facts.model
    stored = f"codes of {model.prequantized}" if model.prequantized else model.dtype
    on_disk = f"the weights on disk are {stored}"
    reason = f"the base computes in {precision}, so a wider copy would only take memory; {on_disk}"
    return Advice(OF_PRECISION[precision], reason, DERIVED, tuple(OF_PRECISION.values()), "M")
