"""Which attention kernel the base runs."""

from __future__ import annotations

from loraloom.config import names
from loraloom.plan.about import About
from loraloom.plan.case import Case
from loraloom.records import Advice

KEY = names.ATTN_IMPLEMENTATION
ABOUT = About(
    does="Which attention kernel the base runs.",
    rule="torch's fused attention where the model's class supports it, else the plain one.",
    evidence=(
        "Unfused attention keeps a table of scores for the way back, which grows with the square of the"
        " length."
    ),
    tools={"transformers": "sdpa where the model supports it"},
)


def advise(case: Case) -> Advice:
    if case.facts.model.supports_sdpa:
        reason = (
            "torch's fused attention keeps no table of scores, which would grow with the square of the"
            " length"
        )
        return Advice("sdpa", reason, "huggingface/transformers", ("sdpa", "eager"), "A")
    reason = f"transformers has no fused attention for {case.facts.model.model_type}"
    return Advice("eager", reason, "huggingface/transformers", ("eager",), "A")
