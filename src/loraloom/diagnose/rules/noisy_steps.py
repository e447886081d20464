"""Steps that throw the loss about: most are clipped, and the loss does not settle."""

from __future__ import annotations

from loraloom.diagnose.case import ACCUMULATION, BATCH, LEAST_STEPS, RATE, Case, word
from loraloom.records import Finding

NAME = "noisy-steps"
CLIPPED = 0.5
SPREAD = 0.5
"""Standard deviation of the loss from bucket to bucket in the second half, as a share of its mean."""
TINY_BATCH = 2
WIDER = 8
"""Rows of a step that the patch asks for."""


def judge(case: Case) -> Finding | None:
    late, fall, best = case.window(0.5, 1), case.fall, case.signals.best
    if case.exit or best is None or case.steps < LEAST_STEPS or case.batch > TINY_BATCH or case.clipped_share <= CLIPPED:
        return None
    advised = case.advised_rate
    settled = fall.sure and (advised is None or case.rate <= 2 * advised)
    if settled or late.spread < SPREAD * late.mean:
        return None
    rate = case.rate / 2 if advised is None else min(case.rate / 2, advised)
    return Finding(
        NAME,
        "warning",
        "the loss is thrown about: too few rows a step for this learning rate",
        f"{case.clipped_share:.0%} of the steps after warm-up were clipped; in the second half the loss is {word(late.mean)} "
        f"with a standard deviation of {word(late.spread)}; {case.batch} rows a step",
        f"lower the learning rate to {word(rate)} and take {WIDER} rows a step",
        {RATE: float(f"{rate:.3g}"), BATCH: WIDER, ACCUMULATION: 1},
    )
