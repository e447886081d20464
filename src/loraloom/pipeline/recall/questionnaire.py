"""All questions of a workload, put to what a memory has learnt.

A question is right where every token of its answer, and its end, is the model's first choice: the answer
that would be written freely, found in one pass. What is said of names that nobody wrote is written out,
since it may be any stored answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loraloom.pipeline.recall.bench import CURRENT, MemoryBench
from loraloom.pipeline.recall.update import Update
from loraloom.recall.forms import Form
from loraloom.recall.workload import NOBODY, Asked, Way

LONGER = 2
"""Tokens that may be written beyond the longest stored answer: what is longer is none of them."""
CHECKED = 40
"""Questions that are answered both ways, to see that both agree."""


@dataclass(frozen=True)
class Marks:
    """What was right, question by question.

    Attributes:
        right: whether each question got its answer, [questions].
        stored: whether a question about a name that nobody wrote got an answer that belongs to another,
            [questions]; false for all others.
    """

    questions: Sequence[Asked]
    right: NDArray[np.bool_]
    stored: NDArray[np.bool_]

    def share(self, way: Way) -> float:
        """Of the questions that are asked in this way, those with their answer."""
        return float(self.right[[one.way == way for one in self.questions]].mean())

    @property
    def false_recall(self) -> float:
        """Of the questions about names that nobody wrote, those that got a stored answer."""
        return float(self.stored[self._of_nobody].mean())

    @property
    def not_known(self) -> float:
        """Of the same, those whose answer was that it is not known."""
        return float(self.right[self._of_nobody].mean())

    @property
    def _of_nobody(self) -> list[bool]:
        return [one.item == NOBODY for one in self.questions]


class Questionnaire:
    """Questions that are put to updates of one base.

    Args:
        stored: answers that a name which nobody wrote must not get.
    """

    def __init__(self, bench: MemoryBench, questions: Sequence[Asked], stored: Sequence[str]) -> None:
        self.bench, self.questions, self.stored = bench, questions, frozenset(stored)
        self.rows = bench.rows([Form("", one.question, one.answer) for one in questions])
        answers = bench.base.tokenizer(list(stored), add_special_tokens=False)["input_ids"]
        self._room = LONGER + max(len(ids) for ids in answers)

    def marks(self, update: Update | None) -> Marks:
        """What an update answers; the bare base, where it is None."""
        with self.bench.seated({CURRENT: update}) as trials:
            (sums,) = self.bench.sums(self.rows, trials).values()
            stored = np.zeros(len(self.rows), dtype=np.bool_)
            unseen = [place for place, one in enumerate(self.questions) if one.item == NOBODY]
            texts = self.written([self.questions[place].question for place in unseen], trials)
        stored[unseen] = [text in self.stored for text in texts]
        return Marks(self.questions, sums.correct == sums.weight, stored)

    def agrees(self, update: Update | None) -> bool:
        """Whether writing freely gives the same marks as the one pass, for some of the questions."""
        some = range(0, len(self.rows), max(1, len(self.rows) // CHECKED))
        asked = [self.questions[place] for place in some]
        with self.bench.seated({CURRENT: update}) as trials:
            (sums,) = self.bench.sums([self.rows[place] for place in some], trials).values()
            texts = self.written([one.question for one in asked], trials)
        written = [text == one.answer for text, one in zip(texts, asked, strict=True)]
        return written == (sums.correct == sums.weight).tolist()

    def written(self, questions: Sequence[str], trials: Sequence[str]) -> list[str]:
        """What is written for questions, always taking the likeliest token.

        Args:
            trials: the adapter in the pack; none for the bare base.
        """
        return self.bench.answers(questions, trials[0] if trials else None, most=self._room)
