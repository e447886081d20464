"""Which attention kernel the base runs."""

from __future__ import annotations

from loraloom.config.asked import Config
from loraloom.plan.about import About
from loraloom.plan.inputs import Decided, Facts
from loraloom.records import Advice

KEY = "model.attn_implementation"
ABOUT = About(
    does="Which attention kernel the base runs.",
    rule="torch's fused attention where the model's class supports it, else the plain one.",
    evidence=(
        "Unfused attention keeps a table of scores for the way back, which grows with the square of the"
        " length."
    ),
    tools={"transformers": "sdpa where the model supports it"},
)


def advise(facts: Facts, asked: Config, decided: Decided) -> Advice:
    if facts.model.supports_sdpa:
        reason = (
            "torch's fused attention: no table of scores is kept, which unfused grows with the square of"
            " the length"
        )
        return Advice("sdpa", reason, "huggingface/transformers", ("sdpa", "eager"), "A")
    return Advice(
        "eager",
        f"transformers has no fused attention for {facts.model.model_type}",
        "huggingface/transformers",
        ("eager",),
        "A",
    )
