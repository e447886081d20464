"""Events asked with less than what was said of them: of what, who, where and when only one or two.

An item shows all slots but the one it asks for, and an adapter that learnt it so hardly answers to a
part of them. A part is asked only where exactly one kept event fits it: anything else has no one answer.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

from loraloom.recall.forms import Distance, Form
from loraloom.recall.items import EVENT_SLOTS, MemoryItem
from loraloom.recall.state import Entry

TRAINED = {
    "who": (
        "Who was it that {what} {where} {when}?",
        "Tell me who {what} {where} {when}.",
        "All I know is that somebody {what} {where} {when}. Who was it?",
    ),
    "what": (
        "What was it that {who} did {where} {when}?",
        "Tell me what {who} did {where} {when}.",
        "All I know is that {who} did something {where} {when}. What was it?",
    ),
    "where": (
        "Where was it that {who} {what} {when}?",
        "Tell me where {who} {what} {when}.",
        "All I know is that {who} {what} {when}. Where was it?",
    ),
    "when": (
        "When was it that {who} {what} {where}?",
        "Tell me when {who} {what} {where}.",
        "All I know is that {who} {what} {where}. When was it?",
    ),
}
NEAR = {
    "who": "Do you know who it was that {what} {where} {when}?",
    "what": "Do you know what it was that {who} did {where} {when}?",
    "where": "Do you know where it was that {who} {what} {when}?",
    "when": "Do you know when it was that {who} {what} {where}?",
}
FAR = {
    "who": "I forgot one thing: somebody {what} {where} {when}, but who?",
    "what": "I forgot one thing: {who} did something {where} {when}, but what?",
    "where": "I forgot one thing: {who} {what} {when}, but where?",
    "when": "I forgot one thing: {who} {what} {where}, but when?",
}
UNSAID = {"who": "somebody", "what": "did something", "where": "", "when": ""}
"""What stands for a slot that is not shown."""
SIZES = (2, 1)
"""Slots that are shown."""


class Cue(NamedTuple):
    """A part of an event that fits no other.

    Attributes:
        asks: the slot that is asked for.
        shown: the slots that are said.
    """

    item: MemoryItem
    asks: str
    shown: tuple[str, ...]

    def asked(self, pattern: str) -> str:
        """A wording of it."""
        said = {name: self.item.slots[name] if name in self.shown else UNSAID[name] for name in UNSAID}
        text = re.sub(r"\s+", " ", pattern.format(**said))
        return re.sub(r"\s+(?=[?.,])", "", text)


def cues_of(entries: Sequence[Entry]) -> list[Cue]:
    """Every part of one or two slots of each event that is kept, where only that event fits it."""
    items = [entry.item for entry in entries if entry.item.kind == "event" and entry.item.slots]
    fitting: dict[tuple[tuple[str, str], ...], set[tuple[str, ...]]] = {}
    for item in items:
        for size in SIZES:
            for shown in combinations(item.slots, size):
                fitting.setdefault(_part(item, shown), set()).add(_event(item))
    return [
        Cue(item, asks, shown)
        for item in items
        if (asks := _asks(item)) is not None
        for size in SIZES
        for shown in combinations([name for name in item.slots if name != asks], size)
        if len(shown) < len(item.slots) - 1 and len(fitting[_part(item, shown)]) == 1
    ]


def cue_forms(entries: Sequence[Entry], *, held_out: bool = False) -> list[Form]:
    """Questions that show a part of an event: of each item one cue of each size, where it has one.

    Args:
        held_out: wordings that are never trained, instead of those that are.
    """
    by_size: dict[tuple[str, int], list[Cue]] = {}
    for cue in cues_of(entries):
        by_size.setdefault((cue.item.id, len(cue.shown)), []).append(cue)
    forms: list[Form] = []
    for cues in by_size.values():
        # Of the item's own words, so that it is the same one in every sleep.
        digest = hashlib.blake2b(cues[0].item.key.encode(), digest_size=4).digest()
        forms += _forms(cues[int.from_bytes(digest, "little") % len(cues)], held_out=held_out)
    return forms


def _forms(cue: Cue, *, held_out: bool) -> list[Form]:
    asked: list[tuple[str, Distance]] = [(pattern, "verbatim") for pattern in TRAINED[cue.asks]]
    if held_out:
        asked = [(NEAR[cue.asks], "near"), (FAR[cue.asks], "far")]
    of = (cue.item.id,)
    return [
        Form("", cue.asked(pattern), cue.item.answer, distance, "cue", of) for pattern, distance in asked
    ]


def _asks(item: MemoryItem) -> str | None:
    """The slot whose value is the answer; None where no slot or more than one is."""
    found = [name for name, value in item.slots.items() if value == item.answer]
    return found[0] if len(found) == 1 else None


def _part(item: MemoryItem, shown: Sequence[str]) -> tuple[tuple[str, str], ...]:
    return tuple((name, _said(item.slots, name)) for name in shown)


def _event(item: MemoryItem) -> tuple[str, ...]:
    return tuple(_said(item.slots, name) for name in EVENT_SLOTS)


def _said(slots: Mapping[str, str], name: str) -> str:
    return " ".join(slots.get(name, "").casefold().split())
