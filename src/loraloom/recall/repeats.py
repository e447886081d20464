"""Recognises what is written again in other words, with the same answer or with another."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from loraloom.recall.corrections import asks_the_same
from loraloom.recall.items import MemoryItem, bare
from loraloom.recall.lexicon import Lexicon, name_words, words_of
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
        there is none."""
        numbers = self._saying.get(bare(item.answer), [])
        return next(self._near(item, np.array(numbers, dtype=np.int64)), None)

    def corrected_by(self, item: MemoryItem) -> Entry | None:
        """The entry whose relation and subject this item asks for, in other words; None where there is
        none. Its answer is another one, or `of` had found it."""
        near = self._near(item)
        return next((entry for entry in near if asks_the_same(item.question, entry.item.question)), None)

    def beside(self, item: MemoryItem) -> Entry | None:
        """The entry that is asked for by nearly the same words, whatever it answers."""
        return next(self._near(item), None)

    def _near(self, item: MemoryItem, numbers: NDArray[np.int64] | None = None) -> Iterator[Entry]:
        """Entries that are asked for by nearly the same words, the nearest first; none where the item
        has a name, a number, or a word of other stored questions that the entry has not.

        Args:
            numbers: of the stored questions, only these.
        """
        if not self._asked or (numbers is not None and not len(numbers)):
            return
        covered = self._lexicon.covered(item.question)
        numbers = np.arange(len(covered)) if numbers is None else numbers
        numbers = numbers[covered[numbers] >= SAME]
        numbered = {word for word in words_of(item.question) if re.search(r"\d", word)}
        telling = name_words(item.question) | numbered | self._lexicon.telling(item.question)
        for number in numbers[np.argsort(-covered[numbers], kind="stable")]:
            question, entry = self._asked[number]
            if telling <= words_of(question):
                yield entry
