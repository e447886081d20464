"""Recognises what is written again in other words."""

from __future__ import annotations

import re
from collections.abc import Sequence

from loraloom.recall.items import MemoryItem, bare
from loraloom.recall.lexicon import Lexicon, named, words_of
from loraloom.recall.state import Entry

SAME = 0.9
"""Share of what tells a stored question apart: one that has so much of it, and the same answer, is the
same question. Two events that differ in one slot share less."""


class Repeats:
    """What is kept, by what it answers.

    Args:
        entries: what a new item may repeat.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._asked = [(question, entry) for entry in entries for question in entry.item.asked]
        self._lexicon = Lexicon([question for question, _ in self._asked])
        self._saying: dict[str, list[int]] = {}
        for number, (_, entry) in enumerate(self._asked):
            self._saying.setdefault(bare(entry.item.answer), []).append(number)

    def of(self, item: MemoryItem) -> Entry | None:
        """The entry that has this item's answer and is asked for by nearly the same words; None where
        there is none, or where the item has a name, a number, or a word of other stored questions that
        the entry has not."""
        numbers = self._saying.get(bare(item.answer))
        if numbers is None:
            return None
        covered = self._lexicon.covered(item.question)[numbers]
        best = int(covered.argmax())
        question, entry = self._asked[numbers[best]]
        numbered = {word for word in words_of(item.question) if re.search(r"\d", word)}
        telling = named(item.question) | numbered | self._lexicon.telling(item.question)
        return entry if covered[best] >= SAME and telling <= words_of(question) else None
