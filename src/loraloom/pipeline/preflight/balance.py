"""Do good and bad answers weigh as much as KTO wants?"""

from __future__ import annotations

from loraloom.pipeline.preflight.result import CheckResult
from loraloom.pipeline.preflight.subject import Subject
from loraloom.plan.kto_balance import imbalance

NAME = "balance"


def inspect(subject: Subject) -> CheckResult:
    """Warns where the good answers weigh less than the bad ones, or over a third more."""
    judged = subject.facts.data.judged
    if judged is None:
        return CheckResult(NAME, "skipped", "no answers that were judged")
    weights = subject.config.preference
    good, bad = judged
    found = imbalance(good, bad, weights.desirable_weight, weights.undesirable_weight)
    if found is None:
        return CheckResult(NAME, "ok", "good and bad answers are in balance", f"{good:,} and {bad:,}")
    return CheckResult(
        NAME,
        "warn",
        "good and bad answers are out of balance",
        number=found[0],
        cause="the kind that weighs more decides the direction of the first steps",
        command=found[1],
    )
