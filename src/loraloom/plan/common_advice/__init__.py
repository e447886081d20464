"""What is commonly advised for LoRA, in our own words, and what became of it here.

Pieces of it disagree with one another and with measurements. An item that is overruled names the
source that speaks against it.
"""

from __future__ import annotations

from loraloom.plan.common_advice import (
    adapters,
    alpha,
    dropout,
    layers,
    memory,
    passes,
    rank,
    rate,
    searching,
    situations,
    symptoms,
)
from loraloom.plan.common_advice.item import Item, Subject

SUBJECTS: tuple[Subject, ...] = (
    rank.SUBJECT,
    alpha.SUBJECT,
    dropout.SUBJECT,
    layers.SUBJECT,
    rate.SUBJECT,
    passes.SUBJECT,
    memory.SUBJECT,
    symptoms.SUBJECT,
    searching.SUBJECT,
    adapters.SUBJECT,
    *situations.SUBJECTS,
)
ITEMS: tuple[Item, ...] = tuple(item for subject in SUBJECTS for item in subject.items)


def about(key: str) -> tuple[Item, ...]:
    """The items that name a rule or a setting, subject by subject."""
    return tuple(item for item in ITEMS if key in item.keys)
