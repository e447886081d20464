"""Which attention kernel the base runs."""

from __future__ import annotations

from loraloom.config.asked import Config
from loraloom.plan.basis import Decided, Facts
from loraloom.records import Advice

KEY = "model.attn_implementation"


def advise(facts: Facts, asked: Config, decided: Decided) -> Advice:
    if facts.model.supports_sdpa:
        reason = "torch's fused attention: no table of scores is kept, which unfused grows with the square of the length"
        return Advice("sdpa", reason, "huggingface/transformers", ("sdpa", "eager"), "A")
    return Advice(
        "eager", f"transformers has no fused attention for {facts.model.model_type}", "huggingface/transformers", None, "A"
    )
