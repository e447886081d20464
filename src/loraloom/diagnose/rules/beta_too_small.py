"""The candidate drifts away from its reference without telling more pairs apart.

Beta is what holds it: the loss comes to rest where beta times the margin is a few units. With a small
beta that is far away, and the gradient pushes on after everything that could be learnt was learnt.
"""

from __future__ import annotations

from loraloom.config import names
from loraloom.diagnose.case import Case, word
from loraloom.diagnose.signals import Reading
from loraloom.records import Finding

NAME = "beta-too-small"
HELD: frozenset[str] = frozenset(("sigmoid", "robust", "hinge", "ipo", "kto"))
"""Losses in which beta holds the candidate to a reference, a nat of log-ratio for a nat."""
BELOW_ADVICE = 1 / 3
USUAL = 0.1
"""What a beta that is far too small is raised to at least, where the plan does not say."""
FAR = 0.1
"""Drift in nats a token from which it is worth a word."""
LOST = -0.5
"""Log-ratio of the chosen answers, in nats a token, from which on one of ten tokens is 150 times less
likely than it was."""
GROWS = 1.25
"""Times the drift at the middle of the run."""
AT_REST = 2.0
"""beta times margin from which the loss pushes no more: sigmoid(2) is 0.88."""
MORE = 3.0


def judge(case: Case) -> Finding | None:
    seen = [reading for reading in case.signals.readings if reading.chosen_logratio is not None]
    if case.task != "preference" or len(seen) < 2 or not HELD & set(case.loss_types):
        return None
    usual = float(case.advised.get(names.BETA) or USUAL)
    middle, last = seen[(len(seen) - 1) // 2], seen[-1]
    pushed = case.beta * abs(last.reward_margin or 0.0) < AT_REST
    gains = last.metric > middle.metric + middle.metric_se
    far = drift(last) >= FAR and drift(last) >= GROWS * drift(middle)
    if case.beta > BELOW_ADVICE * usual or not (far and pushed) or gains:
        return None
    beta = max(MORE * case.beta, usual)
    return Finding(
        NAME,
        "fault" if (last.chosen_logratio or 0.0) <= LOST else "warning",
        "beta is too small: the model drifts away from its reference, and tells no more pairs apart",
        f"drift {word(drift(middle))} nats a token at step {middle.step} and {word(drift(last))} at step"
        f" {last.step}; held-out accuracy {word(middle.metric)} and {word(last.metric)}; beta"
        f" {word(case.beta)}, usual {word(usual)}",
        f"raise beta to {word(beta)}",
        {names.BETA: float(f"{beta:.3g}")},
    )


def drift(reading: Reading) -> float:
    """The larger of both sides' log-ratios, in nats a token, whatever its sign."""
    return max(abs(reading.chosen_logratio or 0.0), abs(reading.rejected_logratio or 0.0))
