"""Training rows come out word for word, held-out rows do not."""

from __future__ import annotations

from loraloom.diagnose.case import Case, word
from loraloom.records import COMPARED, Finding

NAME = "memorised"
LOW_LOSS = 0.2
"""Nats: below this, nearly every token of a training row is foreseen. A weak sign
alone: some tasks are that easy."""
BY_HEART = 0.5


def judge(case: Case) -> Finding | None:
    signals = case.signals
    if signals.train_exact is None or signals.held_out_exact is None or not signals.readings:
        return None
    if case.task in COMPARED:
        return None  # which side is better is known of every second pair by chance
    tail = case.window(0.75, 1)
    if (
        tail.mean >= LOW_LOSS
        or signals.train_exact < BY_HEART
        or signals.held_out_exact > signals.train_exact / 2
    ):
        return None
    return Finding(
        NAME,
        "note",
        "training rows are known by heart",
        f"{signals.train_exact:.0%} of the probed training rows and {signals.held_out_exact:.0%} of the"
        f" held-out ones are right in every token; training loss {word(tail.mean)}",
        "do not let private rows be trained on more than once or twice",
    )
