"""Training ended while its steps still lowered the loss, or before any had.

What is gained is held against what is spent: the learning rate summed over the steps. If the second half
of that sum brought q times what the first half did, and goes on like that, training twice as long brings
q^2 of the whole gain once more.

Progress is the fall of the best loss so far: what a run loses on its way and wins back says nothing of
its pace. And a promise counts for what is sure of it: its lower bound has to be worth the steps.

A run that is far shorter than advised has to show that it is done: its curve bends for the rate's sake,
which falls within few steps, and a fresh head stands at the loss of guessing until the steps have given
it a direction.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

from loraloom.diagnose.case import SIGMAS, WORTH, Case, word
from loraloom.records import COMPARED, Finding

NAME = "undertrained"
SPENT = 0.5
"""Share of the learning rate's sum that parts the two halves; with a linear decay that
is 0.3 of the steps."""
BELOW_ADVICE = 1 / 4
LATE_SHARE = 0.1
"""Of the whole gain, what the second half must have brought where the steps are below
that share of the advised ones."""
LONGER = 2.0


class Mark(NamedTuple):
    """The best validation loss up to a step, and the noise of all that was gained until then."""

    step: int
    loss: float
    noise: float


def judge(case: Case) -> Finding | None:
    readings = case.signals.readings
    base = case.base_loss
    if (
        len(readings) < 3
        # The loss of a preference has no floor: it falls with the margin, long after the choice is made.
        or case.task in COMPARED
        or case.exit
        or case.status != "completed"
        or base is None
        or case.steps < case.planned_steps
    ):
        return None
    last = readings[-1]
    advised = case.advised_steps
    gained = base - last.loss
    middle = _when_spent(case, base)
    short = advised is not None and case.steps < BELOW_ADVICE * advised
    started = gained > SIGMAS * last.loss_se
    if not (_unfinished(case, gained, middle) if short else _still_falling(case, base, middle)):
        return None
    evidence = f"validation loss {word(base)} before training, "
    if started:
        evidence += (
            f"{word(middle.loss)} at best by step {middle.step}, where {SPENT:.0%} of the learning rate"
            " was spent, "
        )
    evidence += f"{word(last.loss)} +- {word(last.loss_se)} at step {last.step}"
    factor = advised / case.steps if short and advised else LONGER
    return Finding(
        NAME,
        "warning",
        "training ended too early:"
        f" {'the loss was still falling' if started else 'nothing was learnt yet'}",
        evidence
        + (f"; {advised:,} steps are advised" if short else _told(base, middle.loss, last.loss)),
        f"train {factor:.3g} times as long",
        case.longer(factor),
    )


def _unfinished(case: Case, gained: float, middle: Mark) -> bool:
    """Of a short run: whether it learnt nothing yet, or a good part of what it learnt came late."""
    last = case.signals.readings[-1]
    if abs(gained) <= SIGMAS * last.loss_se:
        return True
    return gained > 0 and middle.loss - last.loss >= LATE_SHARE * gained


def _still_falling(case: Case, base: float, middle: Mark) -> bool:
    """Whether what the late gain promises is surely enough."""
    last = case.signals.readings[-1]
    end = _course(case, base)[-1]
    if last is not case.signals.best or last.loss >= base:
        return False
    # The paired errors are those of what decides. Where that is not the loss, the error of a single
    # evaluation is all that is known of the loss.
    noise = end.noise - middle.noise if case.decides == "loss" else last.loss_se
    sure = middle.loss - last.loss - SIGMAS * noise
    return sure > 0 and _promise(base - middle.loss, sure) >= WORTH


def _promise(early: float, late: float) -> float:
    """Of the whole gain, what twice the steps bring once more. A curve that bends upwards promises no
    more than a straight one: the first steps are warm-up."""
    return min(late / early, 1.0) ** 2 if early > 0 else 1.0


def _told(base: float, middle: float, end: float) -> str:
    more = _promise(base - middle, middle - end) * (base - end)
    return f": at this pace {LONGER:g} times the steps gain {word(more)} more"


def _course(case: Case, base: float) -> list[Mark]:
    """The best loss so far at each evaluation, the bare base's at first. Evaluations are held against
    the best one before them, over the same rows, and the errors of these steps add up: that of a sum is
    never more than the sum of theirs.
    """
    marks = [Mark(0, base, 0.0)]
    lowest = math.inf
    for reading in case.signals.readings:
        noise = marks[-1].noise
        if reading.loss < lowest:
            lowest = reading.loss
            noise += reading.loss_se if reading.gain_se is None else reading.gain_se
        marks.append(Mark(reading.step, min(base, lowest), noise))
    return marks


def _when_spent(case: Case, base: float) -> Mark:
    """Where `SPENT` of the learning rate's sum was spent, on straight lines between evaluations."""
    trace = case.signals.trace
    areas = trace.areas
    middle = next(
        step for step, area in zip(trace.steps, areas, strict=True) if area >= SPENT * areas[-1]
    )
    marks = _course(case, base)
    for one, other in pairwise(marks):
        if other.step >= middle:
            share = (middle - one.step) / (other.step - one.step)
            return Mark(
                middle,
                one.loss + (other.loss - one.loss) * share,
                one.noise + (other.noise - one.noise) * share,
            )
    return marks[-1]
