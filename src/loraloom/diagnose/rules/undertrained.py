"""Training ended while every step still paid, or before any had.

What is gained is held against what is spent: the learning rate summed over the steps. If the second half of that sum brought
q times what the first half did, and goes on like that, training twice as long brings q^2 of the whole gain once more.

A run that is far shorter than advised has to show that it is done: its curve bends for the rate's sake, which falls within few
steps, and a fresh head stands at the loss of guessing until the steps have given it a direction.
"""

from __future__ import annotations

from itertools import pairwise

from loraloom.diagnose.case import SIGMAS, WORTH, Case, word
from loraloom.records import Finding

NAME = "undertrained"
SPENT = 0.5
"""Share of the learning rate's sum that parts the two halves; with a linear decay that is 0.3 of the steps."""
BELOW_ADVICE = 1 / 4
LATE_SHARE = 0.1
"""Of the whole gain, what the second half must have brought where the steps are below that share of the advised ones."""
LONGER = 2.0


def judge(case: Case) -> Finding | None:
    readings, base = case.signals.readings, case.base_loss
    if len(readings) < 3 or case.exit or case.status != "completed" or base is None or case.steps < case.planned_steps:
        return None
    last, advised = readings[-1], case.advised_steps
    gained, (step, middle) = base - last.loss, _when_spent(case, base)
    short = advised is not None and case.steps < BELOW_ADVICE * advised
    started = gained > SIGMAS * last.loss_se
    if not (_unfinished(case, gained, middle) if short else _still_falling(case, base, middle)):
        return None
    evidence = f"validation loss {word(base)} before training, "
    if started:
        evidence += f"{word(middle)} round step {step}, where {SPENT:.0%} of the learning rate was spent, "
    evidence += f"{word(last.loss)} +- {word(last.loss_se)} at step {last.step}"
    factor = advised / case.steps if short and advised else LONGER
    return Finding(
        NAME,
        "warning",
        f"training ended too early: {'the loss was still falling' if started else 'nothing was learnt yet'}",
        evidence + (f"; {advised:,} steps are advised" if short else _promise(base, middle, last.loss)),
        f"train {factor:.3g} times as long",
        case.longer(factor),
    )


def _unfinished(case: Case, gained: float, middle: float) -> bool:
    """Of a short run: whether it learnt nothing yet, or a good part of what it learnt came late."""
    last = case.signals.readings[-1]
    if abs(gained) <= SIGMAS * last.loss_se:
        return True
    return gained > 0 and middle - last.loss >= LATE_SHARE * gained


def _still_falling(case: Case, base: float, middle: float) -> bool:
    """Whether the late gain is sure, and promises enough."""
    last = case.signals.readings[-1]
    noise = last.gain_se if case.decides == "loss" and last.gain_se is not None else last.loss_se
    if last is not case.signals.best or middle - last.loss <= SIGMAS * noise or last.loss >= base:
        return False
    return _kept(base, middle, last.loss) ** 2 >= WORTH


def _kept(base: float, middle: float, end: float) -> float:
    """The gain of the second half as a share of that of the first. A curve that bends upwards promises no more than a straight
    one: the first steps are warm-up."""
    return min((middle - end) / (base - middle), 1.0) if base > middle else 1.0


def _promise(base: float, middle: float, end: float) -> str:
    more = _kept(base, middle, end) ** 2 * (base - end)
    return f": at this pace {LONGER:g} times the steps gain {word(more)} more"


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
