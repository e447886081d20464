"""What is formed of answers that are preferred and not."""

from __future__ import annotations

from loraloom.config import names
from loraloom.plan.about import About
from loraloom.plan.case import Case
from loraloom.records import Advice

KEY = names.LOSS_TYPE
ABOUT = About(
    does="How the better answer of a pair is told from the worse one.",
    rule="`sigmoid` (DPO) for pairs, `kto` for answers that are judged one by one.",
    evidence=(
        "DPO (arXiv:2305.18290) is what the others are measured against; with tuned rates and betas none"
        " is better on all tasks (arXiv:2405.14734, table 4)."
    ),
    tools={"TRL": "sigmoid"},
)
PAIRS = ("sigmoid", "robust", "ipo", "sigmoid_norm", "hinge", "orpo", "simpo")


def advise(case: Case) -> Advice:
    if case.facts.data.sides == 1:
        reason = "each answer is judged by itself: there are no pairs to compare"
        return Advice(("kto",), reason, "arXiv:2402.01306", (("kto",),), "B")
    choices = tuple((name,) for name in PAIRS)
    return Advice(("sigmoid",), "DPO, for pairs of answers", "arXiv:2305.18290", choices, "B")
