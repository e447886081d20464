"""Training ended while every step still paid."""

from __future__ import annotations

from loraloom.diagnose.case import SIGMAS, Case, word
from loraloom.diagnose.signals import Reading
from loraloom.records import Finding

NAME = "undertrained"
SPENT = 0.75
"""Share of the learning rate's sum after which gains are late; with a linear decay that is half of the steps."""
LATE_SHARE = 0.1
"""Of all that was gained, what the last quarter of that sum brought: a curve that has not bent at all has 0.25."""
LONGER = 2.0


def judge(case: Case) -> Finding | None:
    readings, base = case.signals.readings, case.base_loss
    if len(readings) < 3 or case.exit or case.status != "completed" or base is None or case.steps < case.planned_steps:
        return None
    last, before = readings[-1], _when_spent(case)
    late, whole = before.loss - last.loss, base - last.loss
    noise = last.gain_se if case.decides == "loss" and last.gain_se is not None else last.loss_se
    if last is not case.signals.best or late < LATE_SHARE * whole or late <= SIGMAS * noise:
        return None
    return Finding(
        NAME,
        "warning",
        "training ended too early: the loss was still falling",
        f"validation loss {word(base)} before training, {word(before.loss)} at step {before.step}, where {SPENT:.0%} of the "
        f"learning rate was spent, {word(last.loss)} at step {last.step}",
        f"train {LONGER:g} times as long",
        case.longer(LONGER),
    )


def _when_spent(case: Case) -> Reading:
    """The evaluation (but the last) nearest to where `SPENT` of the learning rate's sum was spent."""
    trace = case.signals.trace
    areas = trace.areas
    step = next(step for step, area in zip(trace.steps, areas, strict=True) if area >= SPENT * areas[-1])
    return min(case.signals.readings[:-1], key=lambda reading: abs(reading.step - step))
