"""Which words tell the stored questions apart, and how many of them another question shares.

What tells invented things apart is mostly their names, which hidden states of a small base hardly see.
A word weighs its inverse document frequency (Spärck Jones 1972) over the stored questions and over ways
to ask that say nothing about what is asked for.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from loraloom.recall.forms import FAR, FAR_OF, FILLERS, NEAR, NEAR_OF, TRAINED, TRAINED_OF

EVERYDAY = (
    "What is the weather like today?",
    "How do I make a cup of tea?",
    "Who was the first king?",
    "Where is the nearest shop?",
    "When does the train leave?",
    "Tell me a story about a dog.",
    "Why is the sky blue?",
    "Which of these is the largest?",
    "What did the boy say to his mother?",
    "Name three kinds of fruit.",
)
"""Questions that have nothing to do with any memory."""
OF_A_NAME = 2.0
"""Weight of a name, relative to another word that is as rare: other wordings keep the names."""
NAME = re.compile(r"(?<![.?!:]\s)(?<!^)(?<=\s)[A-Z][\w'-]*")
"""A word with a capital that begins no sentence."""


def words_of(text: str) -> set[str]:
    """Its words in small letters."""
    return set(re.findall(r"\w+", text.casefold()))


def name_words(text: str) -> set[str]:
    """Words of its names in small letters: those with a capital that begin no sentence."""
    found = {word for match in NAME.findall(text) for word in words_of(match)}
    return {word for word in found if len(word) > 1} - FILLERS


class Lexicon:
    """Words of stored questions, and which question has which.

    Args:
        questions: [N], in the order in which everything here is returned.
    """

    def __init__(self, questions: Sequence[str]) -> None:
        documents = [words_of(question) for question in questions]
        asking = [words_of(re.sub(r"\{\w\}", " ", text)) for text in _ways_to_ask()]
        self._asking = {word for words in asking for word in words} | FILLERS
        self._documents = len(documents) + len(asking)
        self._counts = Counter(word for words in (*documents, *asking) for word in words)
        self._names = {word for question in questions for word in name_words(question)}
        having: dict[str, list[int]] = {}
        for number, words in enumerate(documents):
            for word in words:
                having.setdefault(word, []).append(number)
        self._having = {word: np.array(numbers) for word, numbers in having.items()}
        self._mass_N = np.array([self._mass(words) for words in documents], dtype=np.float64)

    def __contains__(self, word: str) -> bool:
        """Whether a word, in small letters, is in a stored question or in a way to ask."""
        return word in self._counts

    def telling(self, question: str) -> set[str]:
        """Words that stored questions have, and no way to ask."""
        return {word for word in words_of(question) if word in self._having} - self._asking

    def weight(self, word: str) -> float:
        """Inverse document frequency of a word, in nats, `OF_A_NAME` times that for a stored name."""
        frequency = (self._counts.get(word, 0) + 0.5) / (self._documents + 1)
        return -math.log(frequency) * (OF_A_NAME if word in self._names else 1.0)

    def covered(self, question: str) -> NDArray[np.float64]:
        """The share of each stored question's weight, squared, that this question's words have, [N]."""
        return self._shared(words_of(question)) / np.maximum(self._mass_N, 1e-12)

    def cosines(self, question: str) -> NDArray[np.float64]:
        """Cosine to each stored question, [N], of vectors with the weight of each word that is there."""
        words = words_of(question)
        return self._shared(words) / np.maximum(np.sqrt(self._mass(words) * self._mass_N), 1e-12)

    def _shared(self, words: Iterable[str]) -> NDArray[np.float64]:
        shared_N = np.zeros(len(self._mass_N))
        for word in sorted(words):
            if word in self._having:
                shared_N[self._having[word]] += self.weight(word) ** 2
        return shared_N

    def _mass(self, words: Iterable[str]) -> float:
        return sum(self.weight(word) ** 2 for word in sorted(words))


def _ways_to_ask() -> tuple[str, ...]:
    return (*TRAINED, *TRAINED_OF, *NEAR, *NEAR_OF, *FAR, *FAR_OF, *EVERYDAY)
