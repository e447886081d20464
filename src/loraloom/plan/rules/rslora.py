"""Whether the adapter is scaled by alpha/sqrt(r) instead of alpha/r."""

from __future__ import annotations

from loraloom.config import names
from loraloom.plan.about import About
from loraloom.plan.case import Case
from loraloom.records import Advice

KEY = names.USE_RSLORA
ABOUT = About(
    does=(
        "Scales the update by alpha/sqrt(r) instead of alpha/r: at the same alpha it is sqrt(r) times"
        " larger."
    ),
    rule="Off. At ranks of 64 and more a search may try it, with the rate tuned anew.",
    evidence="It keeps large ranks learning (arXiv:2312.03732); a tuned rate does most of the same.",
    tools={"PEFT": "false", "Unsloth": "false"},
)


def advise(case: Case) -> Advice:
    r = case.decided.r
    if r >= 64:
        reason = (
            f"worth a trial at r={r}, with the rate tuned anew: it makes the update sqrt(r) ="
            f" {r**0.5:.0f} times larger"
        )
    else:
        reason = f"it helps at ranks of 64 and more, and r is {r}"
    return Advice(False, reason, "arXiv:2312.03732", (False, True) if r >= 64 else (False,), "B")
