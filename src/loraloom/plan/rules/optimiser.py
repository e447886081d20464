"""The optimiser."""

from __future__ import annotations

from loraloom.config.asked import Config
from loraloom.plan.about import About
from loraloom.plan.inputs import Decided, Facts, bytes_text, count, decided_linears, parameters_per_rank
from loraloom.records import Advice

KEY = "training.optim"
ABOUT = About(
    does="What turns gradients into steps.",
    rule="AdamW.",
    evidence=(
        "Its moments take 8 bytes an adapter parameter, which is little beside the base; SGD or 8-bit"
        " states save something only where the adapter is large."
    ),
    tools={"transformers": "adamw_torch_fused", "Unsloth": "adamw_8bit in its notebooks"},
)


def advise(facts: Facts, asked: Config, decided: Decided) -> Advice:
    trained = decided["adapter.r"].value * parameters_per_rank(decided_linears(facts, decided))
    reason = (
        f"AdamW's two moments of {count(trained)} adapter parameters take {bytes_text(8 * trained)}: too"
        " little to save on"
    )
    return Advice("adamw", reason, "arXiv:2106.09685", ("adamw", "sgd"), "C")
