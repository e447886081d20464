"""Training went on, but left the model no better than it was, far above the advised rate."""

from __future__ import annotations

from loraloom.config import names
from loraloom.diagnose.case import SIGMAS, Case, word
from loraloom.diagnose.rules.noisy_steps import thrown_about
from loraloom.records import Finding

NAME = "rate-too-high"
ABOVE_ADVICE = 4.0
"""Times the advised rate: the range that a search would try ends there."""


def judge(case: Case) -> Finding | None:
    advised = case.advised_rate
    best = case.signals.best
    gain = case.base_gain
    if advised is None or best is None or gain is None or case.rate <= ABOVE_ADVICE * advised:
        return None
    last = case.signals.readings[-1]
    lost_base = gain <= SIGMAS * best.cost_se
    # A best that was lost can also be overfit; what tells the two apart is a training
    # loss that does not settle either.
    unsettled = last.train_loss > case.window(0, 0.1).mean or thrown_about(case)
    lost_best = unsettled and last.cost - best.cost > SIGMAS * best.cost_se
    if not (lost_base or lost_best):
        return None
    return Finding(
        NAME,
        "fault",
        "the learning rate is too high: the model lost more than it learnt",
        f"cost {word(last.cost)} at step {last.step}, best {word(best.cost)} at step {best.step},"
        f" {word(best.cost + gain)} before training; learning rate {word(case.rate)},"
        f" {word(case.rate / advised)} times what is advised",
        f"lower the learning rate to {word(advised)}",
        {names.LEARNING_RATE: advised},
    )
