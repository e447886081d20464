"""The training loss hardly moved, or was still falling at the end, and nothing held it
back but the size of the steps.

A rate far below the advised one and too few steps look alike: what both leave undone is
done sooner by the rate.
"""

from __future__ import annotations

from loraloom.config import names
from loraloom.diagnose.case import LEAST_STEPS, SIGMAS, Case, word
from loraloom.diagnose.rules import undertrained
from loraloom.records import Finding

NAME = "rate-too-low"
FALL = 0.01
"""Share of the first loss that a useful rate takes off at least."""
FALL_OF_PREFERENCE = 0.1
"""The same where a run learns to choose between answers at a rate far below the advised one: its loss
begins at that of guessing (ln 2 of DPO), and a choice that is learnt takes much of that off."""
BELOW_ADVICE = 1 / 4
FACTOR = 3.0


def judge(case: Case) -> Finding | None:
    advised = case.advised_rate
    first = case.window(0, 0.1)
    fall = case.fall
    low = advised is not None and case.rate < BELOW_ADVICE * advised
    least = FALL_OF_PREFERENCE if low and case.task == "preference" else FALL
    still = fall.mean < max(least * first.mean, SIGMAS * fall.se)
    if case.exit or case.steps < LEAST_STEPS or (advised is not None and not low):
        return None
    if not still and not (low and undertrained.judge(case)):
        return None
    # Where most steps are clipped, it is the clipping that makes them small.
    if case.clipped_share > 0.5 and not low:
        return None
    rate = max(FACTOR * case.rate, advised or 0.0)
    evidence = (
        f"training loss {word(first.mean)} at first and {word(first.mean - fall.mean)} late in"
        f" {case.steps} steps"
    )
    if case.update is not None:
        evidence += f"; the median layer moved by {100 * case.update:.2g}% of its weight"
    if advised is not None:
        evidence += f"; learning rate {word(case.rate)}, advised {word(advised)}"
    return Finding(
        NAME,
        "warning",
        "the learning rate is too low: the loss"
        f" {'hardly moved' if still else 'was still falling at the end'}",
        evidence,
        f"raise the learning rate to {word(rate)}",
        {names.LEARNING_RATE: float(f"{rate:.3g}")},
    )
