"""The loss jumps in the first steps, at full rate, before it falls."""

from __future__ import annotations

from loraloom.config import names
from loraloom.diagnose.case import LEAST_STEPS, Case, word
from loraloom.records import Finding

NAME = "no-warm-up"
EARLY = 0.25
JUMP = 1.25
"""Times the first loss, of the mean of three buckets in a row."""
SHORT = 0.02
"""Share of the steps below which a warm-up hardly is one."""
ENOUGH = 0.1


def judge(case: Case) -> Finding | None:
    losses = case.losses
    warmup = float(case.values.get(names.WARMUP_RATIO) or 0)
    early = losses[: max(4, round(EARLY * len(losses)))]
    if case.steps < LEAST_STEPS or len(early) < 4 or warmup >= SHORT or case.exit:
        return None
    smooth = [sum(early[i : i + 3]) / 3 for i in range(1, len(early) - 2)]
    peak = max(range(len(smooth)), key=smooth.__getitem__, default=None)
    if peak is None or smooth[peak] < JUMP * early[0]:
        return None
    step = case.signals.trace.steps[peak + 2]
    return Finding(
        NAME,
        "warning",
        "the loss jumps in the first steps: the learning rate starts at its full height",
        f"training loss {word(early[0])} at first and {word(smooth[peak])} round step {step}; warm-up is"
        f" {warmup:.0%} of {case.planned_steps} steps",
        f"warm up for {ENOUGH:.0%} of the steps",
        {names.WARMUP_RATIO: ENOUGH},
    )
