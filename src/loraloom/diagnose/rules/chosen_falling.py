"""The chosen answers become less likely than they were, and only less so than the rejected ones.

The loss asks for a difference alone, so that it falls just as well while both sides sink (Pal et al.,
arXiv:2402.13228; Razin et al., arXiv:2410.08847): what the model then writes is neither.
"""

from __future__ import annotations

from typing import Any

from loraloom.config import names
from loraloom.diagnose.case import SIGMAS, Case, word
from loraloom.diagnose.rules.beta_too_small import LOST
from loraloom.diagnose.signals import Reading
from loraloom.records import Finding

NAME = "chosen-falling"
LOW = -0.1
"""Log-ratio of the chosen answers, in nats a token, from which their fall is worth a word."""
MORE_BETA = 3.0
MOST_BETA = 0.5
RATE_FACTOR = 1 / 3


def judge(case: Case) -> Finding | None:
    seen = [reading for reading in case.signals.readings if reading.chosen_logratio is not None]
    if case.task != "preference" or not seen:
        return None
    last, lowest = seen[-1], _lowest_before(seen)
    now = last.chosen_logratio or 0.0
    if now + SIGMAS * (last.chosen_logratio_se or 0.0) > LOW or now > lowest:
        return None
    patch, next_step = _remedy(case)
    return Finding(
        NAME,
        "fault" if now <= LOST else "warning",
        "the chosen answers become less likely: the model moves away from both sides",
        f"log-ratio of chosen answers {word(now)} nats a token at step {last.step}, of rejected ones"
        f" {word(last.rejected_logratio or 0.0)}; held-out accuracy {word(last.metric)}; beta"
        f" {word(case.beta)}, learning rate {word(case.rate)}",
        next_step,
        patch,
    )


def _lowest_before(seen: list[Reading]) -> float:
    """The lowest chosen log-ratio of the first half of the evaluations: one that ends below it falls."""
    earlier = seen[: len(seen) // 2]
    return min((reading.chosen_logratio or 0.0 for reading in earlier), default=0.0)


def _remedy(case: Case) -> tuple[dict[str, Any], str]:
    """A lower rate where it is above the advice, a larger beta where there is room, else the chosen
    answers' own loss beside it."""
    advised = case.advised_rate
    if advised is not None and case.rate > advised:
        return case.faster(RATE_FACTOR), (
            f"lower the learning rate to {word(case.rate * RATE_FACTOR)}, or raise beta, or learn the"
            " chosen answers too: preference.loss_type=[sigmoid, sft]"
        )
    beta = MORE_BETA * case.beta
    if beta <= MOST_BETA:
        return {names.BETA: float(f"{beta:.3g}")}, (
            f"raise beta to {word(beta)}, or learn the chosen answers too:"
            " preference.loss_type=[sigmoid, sft]"
        )
    kept = [loss for loss in case.loss_types if loss != "sft"] or ["sigmoid"]
    return {names.LOSS_TYPE: [*kept, "sft"]}, (
        f"learn the chosen answers too: preference.loss_type=[{', '.join([*kept, 'sft'])}]"
    )
