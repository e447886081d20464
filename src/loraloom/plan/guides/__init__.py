"""Every recommendation of the four guides that this project takes as its specification,
and what became of it.

The guides disagree with one another and with measurements in places; an item that is
not followed names its source.
"""

from __future__ import annotations

from loraloom.plan.guides import configuration, encyclopedia, overview, practical
from loraloom.plan.guides.item import Item

TITLES = (
    "an overview for models of 3 to 4 billion parameters and memory modules",
    "a practical guide",
    "a parameter encyclopedia",
    "a configuration guide from experiments on sentiment",
)
"""What each guide is, by its number."""
ITEMS: tuple[Item, ...] = (*overview.ITEMS, *practical.ITEMS, *encyclopedia.ITEMS, *configuration.ITEMS)


def about(key: str) -> tuple[Item, ...]:
    """The items that name a rule or a setting, in the order of the guides."""
    return tuple(item for item in ITEMS if key in item.keys)
