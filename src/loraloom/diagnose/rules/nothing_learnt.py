"""The adapter moved, and held-out rows gained nothing: what it learnt is not in the inputs.

That no gain is sure does not say that there is none: few rows to judge by cannot tell. It is only said
where they also rule out that a good part of what a guess has wrong was put right.
"""

from __future__ import annotations

from loraloom.diagnose.case import SIGMAS, Case, word
from loraloom.records import Finding

NAME = "nothing-to-learn"
MOVED = 0.01
"""Median |scale B A| / |W| from which an adapter has certainly moved."""
RULED_OUT = 1 / 3
"""Share of a guess's cost: a gain of this size must be ruled out."""


def judge(case: Case) -> Finding | None:
    best = case.signals.best
    guess = case.guess_cost
    if (
        best is None
        or guess is None
        or case.guess_loss is None
        or case.exit
        or case.steps < 2 * case.steps_per_epoch
    ):
        return None
    lowest = min(case.signals.readings, key=lambda reading: reading.loss)
    better = (
        guess - best.cost > SIGMAS * best.cost_se
        or case.guess_loss - lowest.loss > SIGMAS * lowest.loss_se
    )
    # The most that may have been gained, by the error of the evaluation.
    possible = guess - best.cost + SIGMAS * best.cost_se
    if better or possible > RULED_OUT * guess or (case.update or 0.0) < MOVED:
        return None
    exact = (
        ""
        if case.signals.train_exact is None
        else f"; {case.signals.train_exact:.0%} of the probed training rows are right"
    )
    return Finding(
        NAME,
        "warning",
        "nothing that was learnt holds on other rows: the texts may not determine the labels",
        f"best {case.decides} cost {word(best.cost)} +- {word(best.cost_se)} at step {best.step}; the"
        f" commonest answer alone has {word(guess)}{exact}",
        "read twenty rows with their labels: are they shuffled, swapped, or from another column?",
    )
