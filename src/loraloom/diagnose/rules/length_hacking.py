"""Longer answers are what was learnt, not better ones.

The margin of a pair is a sum over tokens, so that length alone can make it (Park et al.,
arXiv:2403.19159): where it goes with the difference of the lengths, or what the model writes has grown
far beyond what its base writes, length is what is rewarded.
"""

from __future__ import annotations

from loraloom.config import names
from loraloom.diagnose.case import SIGMAS, Case, word
from loraloom.diagnose.rules.preference_not_learnt import CHANCE
from loraloom.records import COMPARED, Finding

NAME = "length-hacking"
LONGER = 1.3
"""Times the length of what the base writes."""
CORRELATES = 0.5
"""Correlation of margin and difference of lengths over held-out pairs."""
PER_TOKEN = "sigmoid_norm"
"""The loss whose log-ratios are means a token."""
SUMMED: frozenset[str] = frozenset(("sigmoid", "robust", "hinge"))
ADVICE = (
    "pair answers of like length, or take log-ratios a token: preference.loss_type=[sigmoid_norm] with"
    " a larger beta (5)"
)
BETA_PER_TOKEN = 5.0
ALIKE = "pair answers of like length, or take away pairs whose chosen answer is the longer one"
"""Of a reward model, which has no other loss."""


def judge(case: Case) -> Finding | None:
    if case.task not in COMPARED or not case.signals.readings:
        return None
    last = case.signals.readings[-1]
    if last.length_correlation is None:
        return None
    found, error = last.length_correlation, last.length_correlation_se or 0.0
    # Margins that are nothing yet go with length by themselves: they are sums over tokens.
    learnt = last.metric - SIGMAS * last.metric_se > CHANCE
    if not learnt or found - SIGMAS * error <= CORRELATES:
        return None
    return Finding(
        NAME,
        "warning",
        "longer answers are what was learnt: margins go with the difference of the lengths",
        f"correlation {word(found)} +- {word(error)} over held-out pairs at step {last.step}; a chosen"
        f" answer has {word(last.chosen_tokens or 0.0)} tokens, a rejected one"
        f" {word(last.rejected_tokens or 0.0)}",
        ALIKE if case.task == "reward" else ADVICE,
        _patch(case),
    )


def longer_than_base(ratio: float, error: float, count: int) -> Finding | None:
    """The same of what the best adapter writes.

    Args:
        ratio: its length over the base's, on the same prompts, with its standard error.
        count: prompts.
    """
    if ratio <= LONGER or ratio - SIGMAS * error <= 1:
        return None
    return Finding(
        NAME,
        "warning",
        "what the adapter writes is much longer than what it began with",
        f"{word(ratio)} +- {word(error)} times as long, over {count} prompts",
        ADVICE,
    )


def _patch(case: Case) -> dict[str, object]:
    if not SUMMED & set(case.loss_types):
        return {}
    return {names.LOSS_TYPE: [PER_TOKEN], names.BETA: BETA_PER_TOKEN}
