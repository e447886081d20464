"""The loss has left its best for good, or is no number any more."""

from __future__ import annotations

from loraloom.config import names
from loraloom.diagnose.case import Case, word
from loraloom.records import Finding

NAME = "diverged"
RATE_FACTOR = 1 / 3
LEAST_WARMUP = 0.06


def judge(case: Case) -> Finding | None:
    ended = case.exit
    if ended is None or ended[0] != "diverged":
        return None
    advised = case.advised_rate
    rate = min(case.rate * RATE_FACTOR, advised or case.rate)
    evidence = f"{ended[1]}; learning rate {word(case.rate)}"
    if advised is not None:
        evidence += f", {word(case.rate / advised)} times what the rules advise here"
    warmup = min(0.5, max(2 * float(case.values.get(names.WARMUP_RATIO) or 0), LEAST_WARMUP))
    return Finding(
        NAME,
        "fault",
        "training diverged",
        evidence,
        f"lower the learning rate to {word(rate)} and warm up for {warmup:.0%} of the steps",
        {names.LEARNING_RATE: float(f"{rate:.3g}"), names.WARMUP_RATIO: warmup},
    )
