"""The loss jumps about: most steps are clipped, and the loss does not settle."""

from __future__ import annotations

from loraloom.config import names
from loraloom.diagnose.case import LEAST_STEPS, Case, word
from loraloom.records import Finding

NAME = "noisy-steps"
CLIPPED = 0.5
SPREAD = 0.5
"""Standard deviation of the loss from bucket to bucket in the second half, as a share of its mean."""
TINY_BATCH = 2
WIDER = 8
"""Rows of a step that the patch asks for."""


def judge(case: Case) -> Finding | None:
    advised = case.advised_rate
    late = case.window(0.5, 1)
    if (
        case.exit
        or case.signals.best is None
        or case.steps < LEAST_STEPS
        or case.batch > TINY_BATCH
        or not thrown_about(case)
    ):
        return None
    # A small batch is noisy at any rate: where it learns all the same, near the advice, all is well.
    if case.fall.sure and (advised is None or case.rate <= 2 * advised):
        return None
    rate = case.rate / 2 if advised is None else min(case.rate / 2, advised)
    return Finding(
        NAME,
        "warning",
        "the loss jumps about: too few rows a step for this learning rate",
        f"{case.clipped_share:.0%} of the steps after warm-up were clipped; in the second half the loss"
        f" is {word(late.mean)} with a standard deviation of {word(late.spread)}; {case.batch} rows a"
        " step",
        f"lower the learning rate to {word(rate)} and take {WIDER} rows a step",
        {
            names.LEARNING_RATE: float(f"{rate:.3g}"),
            names.PER_DEVICE_TRAIN_BATCH_SIZE: WIDER,
            names.GRADIENT_ACCUMULATION_STEPS: 1,
        },
    )


def thrown_about(case: Case) -> bool:
    """Whether most steps are clipped and the training loss jumps by a good part of
    itself up to the end."""
    late = case.window(0.5, 1)
    return case.clipped_share > CLIPPED and late.spread >= SPREAD * late.mean
