"""The optimiser."""

from __future__ import annotations

from loraloom.config import names
from loraloom.plan.about import About
from loraloom.plan.case import Case
from loraloom.plan.numbers import bytes_text, count
from loraloom.records import Advice

KEY = names.OPTIM
ABOUT = About(
    does="What turns gradients into steps.",
    rule="AdamW.",
    evidence=(
        "Its moments take 8 bytes an adapter parameter, which is little beside the base; SGD or 8-bit"
        " states save something only where the adapter is large."
    ),
    tools={"transformers": "adamw_torch_fused", "Unsloth": "adamw_8bit in its notebooks"},
)


def advise(case: Case) -> Advice:
    trained = case.adapter_parameters
    reason = (
        f"AdamW's two moments of {count(trained)} adapter parameters take {bytes_text(8 * trained)}: too"
        " little to save on"
    )
    return Advice("adamw", reason, "arXiv:2106.09685", ("adamw", "sgd"), "C")
