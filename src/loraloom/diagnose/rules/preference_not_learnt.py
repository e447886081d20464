"""Which of two answers is the better one was not learnt: a step too small, pairs learnt by heart, or
sides that are swapped.

Held-out accuracy that cannot be told from a half says that nothing was learnt which holds on other
pairs. The training loss says why: where it began, nothing moved; above it, the steps are too large for
what there is to learn; below it, or with training pairs that are nearly all right, they were learnt one
by one. Far below a half, what is chosen here is rejected there.
"""

from __future__ import annotations

from loraloom.config import names
from loraloom.diagnose.case import LEAST_STEPS, SIGMAS, Case, word
from loraloom.diagnose.signals import Reading
from loraloom.records import COMPARED, Finding

NAME = "preference-not-learnt"
CHANCE = 0.5
SWAPPED = 0.4
"""Held-out accuracy below which the sides must be swapped somewhere, where its error leaves no doubt."""
UNMOVED = 0.01
"""Share of the first loss (ln 2 of DPO) within which the training loss has stayed where it was, however
little it varies."""
BY_HEART = 0.9
"""Accuracy on training pairs."""
LEAST_SURE = 0.1
"""Largest standard error of an accuracy that says something."""
FASTER = 5.0
SLOWER = 1 / 3
READ = "read twenty pairs: does anything in them tell the better answer?"


def judge(case: Case) -> Finding | None:
    if case.task not in COMPARED or not case.signals.readings:
        return None
    # The best of several evaluations is above chance by chance.
    last = case.signals.readings[-1]
    if last.metric_se > LEAST_SURE:
        return None
    trained = case.signals.train_exact
    # A model that broke is wrong about the training pairs too.
    learnt = trained is None or trained > CHANCE
    # Nor was one that was right before it broke taught the opposite.
    was_right = any(one.metric - SIGMAS * one.metric_se > CHANCE for one in case.signals.readings)
    wrong = last.metric < SWAPPED and last.metric + SIGMAS * last.metric_se < CHANCE
    if wrong and learnt and not was_right:
        return _swapped(last)
    if abs(last.metric - CHANCE) > SIGMAS * last.metric_se or case.steps < LEAST_STEPS:
        return None
    if (trained or 0.0) > BY_HEART:
        return _by_heart(case, last)
    return _at_chance(case, last)


def _at_chance(case: Case, last: Reading) -> Finding:
    """What helps goes by what became of the training loss."""
    fall, first, late = case.fall, case.window(0, 0.1), case.window(0.75, 1)
    symptom = "no preference was learnt: the training loss "
    factor: float | None = None
    if abs(fall.mean) <= max(UNMOVED * abs(first.mean), SIGMAS * fall.se):
        symptom += "is where it began"
        # Far above the advice it is not the size of the steps that is wrong.
        fast = case.advised_rate is not None and case.rate > FASTER * case.advised_rate
        factor = None if fast else FASTER
        first_step = "" if fast else f"raise the learning rate to {word(FASTER * case.rate)}; or "
    elif fall.mean < 0:
        symptom += "has risen"
        factor = SLOWER
        first_step = f"lower the learning rate to {word(SLOWER * case.rate)}; or "
    else:
        symptom += "fell, for what holds on no other pairs"
        first_step = "bring more pairs, to learn from and to hold out; or "
    return Finding(
        NAME,
        "warning",
        symptom,
        f"held-out accuracy {_accuracy(last)}; training loss {word(first.mean)} at first and"
        f" {word(late.mean)} late in {case.steps} steps; learning rate {word(case.rate)}",
        first_step + READ,
        case.faster(factor) if factor else {},
    )


def _swapped(last: Reading) -> Finding:
    return Finding(
        NAME,
        "fault",
        "chosen and rejected are swapped in the training rows or in the held-out ones",
        f"held-out accuracy {_accuracy(last)} at step {last.step}, far below {CHANCE:g}: what was learnt"
        " is the opposite",
        "read ten pairs of each file, and swap the columns of the one that is the wrong way round",
    )


def _by_heart(case: Case, last: Reading) -> Finding:
    few = {names.NUM_TRAIN_EPOCHS: 1.0} if float(case.values[names.NUM_TRAIN_EPOCHS] or 0) > 1 else {}
    return Finding(
        NAME,
        "fault",
        "the training pairs are known by heart, and what was learnt holds on no other",
        f"{case.signals.train_exact:.0%} of the probed training pairs are right, and of held-out ones"
        f" {_accuracy(last)}; {case.rows:,} training pairs",
        "bring more pairs, or train for fewer passes; where pairs contradict one another, no number of"
        " them helps",
        few,
    )


def _accuracy(reading: Reading) -> str:
    return f"{word(reading.metric)} +- {word(reading.metric_se)}"
