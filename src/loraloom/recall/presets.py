"""Which preset a memory trains by: that of the kind that most of its items have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Literal

from loraloom.recall.items import Kind

MemoryPreset = Literal["memory-episodic", "memory-relational", "memory-spatial"]
PRESET_OF: Mapping[Kind, MemoryPreset] = {
    "event": "memory-episodic",
    "fact": "memory-relational",
    "trajectory": "memory-spatial",
}
"""Where two kinds are as frequent, the one that comes first."""


def preset_of(kinds: Iterable[Kind]) -> MemoryPreset:
    """The preset for items of these kinds; that of events, where there are none."""
    counts = Counter(kinds)
    return PRESET_OF[max(PRESET_OF, key=lambda kind: counts[kind])]
