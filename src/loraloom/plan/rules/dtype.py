"""How the frozen weights are stored: as they are computed."""

from __future__ import annotations

from loraloom.config.asked import Config
from loraloom.plan.about import About
from loraloom.plan.inputs import DERIVED, Decided, Facts
from loraloom.records import Advice

KEY = "model.dtype"
ABOUT = About(
    does="The format in which the frozen weights are held in memory.",
    rule="The one in which they are computed.",
    evidence="A wider copy takes memory and changes no product.",
    tools={"transformers": "as the checkpoint is stored"},
)
OF_PRECISION = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "fp64": "float64"}


def advise(facts: Facts, asked: Config, decided: Decided) -> Advice:
    precision = decided["training.precision"].value
    value = OF_PRECISION[precision]
    reason = (
        f"the base computes in {precision}, so a wider copy would only take memory; the weights on disk"
        f" are {facts.model.dtype}"
    )
    return Advice(value, reason, DERIVED, tuple(OF_PRECISION.values()), "M")
