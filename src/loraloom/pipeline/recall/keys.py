"""Keys of stored questions: which of them another question asks, and how far it lies from all of them.

A key is the base's hidden state after its middle block, averaged over the tokens, from which the mean of
everyday questions is taken: hidden states of all texts point the same way to a large part.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from loraloom.recall.items import MemoryItem
from loraloom.recall.lexicon import EVERYDAY, Lexicon, name_words
from loraloom.recall.vectors import Vectors, normal

if TYPE_CHECKING:
    from loraloom.pipeline.recall.bench import MemoryBench

NAMING = 0.5
"""Of a name's coordinate, beside hidden states of length 1."""


def vectors_of(bench: MemoryBench, questions: Sequence[str]) -> NDArray[np.float32]:
    """Hidden states of questions from the everyday ones' mean, [N, D]."""
    return bench.states.of(questions) - bench.states.of(EVERYDAY).mean(0)


def scope_vectors(bench: MemoryBench, questions: Sequence[str]) -> Vectors:
    """What the gate compares: hidden states, and whether a question names anything, which what is
    remembered mostly does and small talk does not, [N, D + 1]."""
    names_N1 = np.array(
        [[NAMING if name_words(question) else -NAMING] for question in questions], np.float32
    )
    return normal(np.hstack([normal(vectors_of(bench, questions)), names_N1.reshape(-1, 1)]))


class Keys:
    """What is stored, to be found by other wordings: cosine of hidden states plus cosine of words."""

    def __init__(self, bench: MemoryBench, items: Sequence[MemoryItem]) -> None:
        self._bench = bench
        questions = [item.question for item in items]
        self._keys_ND = normal(vectors_of(bench, questions))
        self._lexicon = Lexicon(questions)

    def nearness(self, questions: Sequence[str]) -> Generator[NDArray[np.float64]]:
        """Of each question to each stored one, [N]; the higher the nearer, 2 for the same words."""
        vectors_QD = normal(vectors_of(self._bench, questions))
        for question, vector_D in zip(questions, vectors_QD, strict=True):
            yield self._keys_ND @ vector_D + self._lexicon.cosines(question)
