"""How many evaluations without a gain end a candidate."""

from __future__ import annotations

from loraloom.config import names
from loraloom.plan.about import About
from loraloom.plan.case import DERIVED, Case
from loraloom.records import Advice

KEY = names.EARLY_STOPPING_PATIENCE
ABOUT = About(
    does="How many evaluations without a gain end a candidate.",
    rule="Three, where rows are seen more than once and there are validation rows; else never.",
    evidence=(
        "A single pass cannot overfit by repetition. The best checkpoint is kept either way, so this"
        " saves time."
    ),
    tools={"transformers": "never"},
)
RANGE = (2, 5)


def advise(case: Case) -> Advice:
    epochs = case.decided.epochs
    if case.facts.data.validation_rows == 0:
        return Advice(None, "there are no validation rows to judge by", DERIVED, RANGE, "M")
    if epochs <= 1:
        return Advice(
            None,
            "one pass does not see a row twice: there is nothing to overfit on",
            DERIVED,
            RANGE,
            "M",
        )
    passes = f"{epochs:g} passes over {case.facts.data.rows:,} rows"
    reason = f"{passes} can overfit: three evaluations without a gain are enough to tell"
    return Advice(3, reason, DERIVED, RANGE, "M")
