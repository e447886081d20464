"""Training ended while every step still paid.

What is gained is held against what is spent: the learning rate summed over the steps. If the second half of that sum brought
q times what the first half did, and goes on like that, training twice as long brings q^2 of the whole gain once more. A run
that is far shorter than advised needs to promise less: its curve bends for the rate's sake, which falls within few steps.
"""

from __future__ import annotations

from itertools import pairwise

from loraloom.diagnose.case import SIGMAS, Case, word
from loraloom.records import Finding

NAME = "undertrained"
SPENT = 0.5
"""Share of the learning rate's sum that parts the two halves; with a linear decay that is 0.3 of the steps."""
WORTH = 0.1
"""Of the whole gain, what twice the training must promise."""
BELOW_ADVICE = 1 / 4
LATE_SHARE = 0.1
"""Of the whole gain, what the second half must have brought where the steps are below that share of the advised ones."""
LONGER = 2.0


def judge(case: Case) -> Finding | None:
    readings, base = case.signals.readings, case.base_loss
    if len(readings) < 3 or case.exit or case.status != "completed" or base is None or case.steps < case.planned_steps:
        return None
    last, (step, middle) = readings[-1], _when_spent(case, base)
    early, late = base - middle, middle - last.loss
    noise = last.gain_se if case.decides == "loss" and last.gain_se is not None else last.loss_se
    if last is not case.signals.best or late <= SIGMAS * noise or last.loss >= base:
        return None
    # A curve that bends upwards promises no more than a straight one: the first steps are warm-up.
    kept = min(late / early, 1.0) if early > 0 else 1.0
    advised = case.advised_steps
    short = advised is not None and case.steps < BELOW_ADVICE * advised and late >= LATE_SHARE * (base - last.loss)
    if kept**2 < WORTH and not short:
        return None
    return Finding(
        NAME,
        "warning",
        "training ended too early: the loss was still falling",
        f"validation loss {word(base)} before training, {word(middle)} round step {step}, where {SPENT:.0%} of the learning rate "
        f"was spent, {word(last.loss)} at step {last.step}: at this pace {LONGER:g} times the steps gain "
        f"{word(kept**2 * (base - last.loss))} more" + (f"; {advised:,} steps are advised" if short else ""),
        f"train {LONGER:g} times as long",
        case.longer(LONGER),
    )


def _when_spent(case: Case, base: float) -> tuple[int, float]:
    """(step, validation loss) where `SPENT` of the learning rate's sum was spent, on straight lines between evaluations."""
    trace = case.signals.trace
    areas = trace.areas
    middle = next(step for step, area in zip(trace.steps, areas, strict=True) if area >= SPENT * areas[-1])
    points = [(0, base), *((reading.step, reading.loss) for reading in case.signals.readings)]
    for (start, before), (end, after) in pairwise(points):
        if end >= middle:
            return middle, before + (after - before) * (middle - start) / (end - start)
    return points[-1]
