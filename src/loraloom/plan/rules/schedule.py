"""The shape of the learning rate over the run."""

from __future__ import annotations

from loraloom.config import names
from loraloom.plan.about import About
from loraloom.plan.case import Case
from loraloom.records import Advice

KEY = names.LR_SCHEDULER_TYPE
ABOUT = About(
    does="How the rate moves after warm-up.",
    rule="Linear to zero.",
    evidence=(
        "Linear and cosine to zero are alike; a constant rate with a cooldown matches them"
        " (arXiv:2405.18392)."
    ),
    tools={"transformers": "linear", "Tinker": "linear"},
)


def advise(case: Case) -> Advice:
    reason = (
        "falls to zero, so the last steps settle; cosine does as well, a constant rate needs a cooldown"
        " of its own"
    )
    return Advice("linear", reason, "arXiv:2405.18392; tinker-cookbook sweep", ("linear", "cosine"), "C")
