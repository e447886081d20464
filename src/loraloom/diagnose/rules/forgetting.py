"""The model lost on rows of what it could do before."""

from __future__ import annotations

from loraloom.diagnose.case import SIGMAS, Case, Difference, word
from loraloom.records import Finding

NAME = "forgetting"
LEAST_RISE = 0.02
"""Nats that a person would notice at least."""
RATE_FACTOR = 1 / 3


def judge(case: Case) -> Finding | None:
    if case.signals.retain_change is None:
        return None
    change = Difference(*case.signals.retain_change)
    if change.mean <= max(SIGMAS * change.se, LEAST_RISE):
        return None
    patch = case.faster(RATE_FACTOR)
    return Finding(
        NAME,
        "warning",
        "the model forgets what it could do before",
        f"loss on the rows to retain is {word(change.mean)} +- {word(change.se)} nats above"
        " what training began with",
        "lower the learning rate, replay such rows (data.replay), or apply the adapter at 0.5 to"
        " 0.8 of its scale",
        patch,
    )
