"""Whether a question is about something that is remembered: only then may the memory answer.

Otherwise the bare base does, and does so bit by bit as without a memory. The decision takes words alone:
it needs no model, and is the same wherever it is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from loraloom.recall.derived import derived_forms, settled_of
from loraloom.recall.lexicon import Lexicon, name_words, words_of
from loraloom.recall.routes import route_question
from loraloom.recall.state import State

ENOUGH = 0.5
"""Of what tells a stored question apart: a question that has so much of it is about the same."""

ABOUT = 0.4
"""Cosine of a question's words to the nearest one's: a story that names somebody is not about them."""
NEARLY_ALL = 0.8
"""A question that has so much of a stored one, its names among it, may name others beside."""


@dataclass(frozen=True)
class Route:
    """Where a question goes, and why.

    Attributes:
        remembered: the memory answers.
        nearest: the stored question whose words it shares most; None where nothing is stored.
        share: of what tells that one apart.
        cosine: of the words of both.
        stranger: a name in the question that is nowhere in the memory; None where the question has
            nearly all of the nearest one beside it.
    """

    remembered: bool
    nearest: str | None
    share: float
    cosine: float
    stranger: str | None


class Router:
    """Decides by words.

    Args:
        questions: everything that is remembered is asked for by one of them.
        answers: names that stand in these are known too.
    """

    def __init__(self, questions: Sequence[str], answers: Iterable[str] = ()) -> None:
        self._questions = questions
        self._lexicon = Lexicon(questions)
        self._answered = {word for answer in answers for word in words_of(answer)}

    def route(self, question: str) -> Route:
        """Where a question goes."""
        if not self._questions:
            return Route(False, None, 0.0, 0.0, None)
        covered_N = self._lexicon.covered(question)
        best = int(covered_N.argmax())
        share = float(covered_N[best])
        stranger = next((name for name in sorted(name_words(question)) if self._is_strange(name)), None)
        nearest = self._questions[best]
        if share >= NEARLY_ALL and name_words(nearest) <= words_of(question):
            stranger = None  # "I am Tom. When is Ilka's birthday?" has all that it is about
        cosine = float(self._lexicon.cosines(question)[best])
        remembered = stranger is None and share >= ENOUGH and cosine >= ABOUT
        return Route(remembered, nearest, share, cosine, stranger)

    @staticmethod
    def of(state: State) -> Router:
        """Of what was learnt and what follows from it. Of a map, every way is remembered."""
        items = [entry.item for entry in state.known]
        derived = derived_forms(settled_of(state.known))
        maps = dict.fromkeys(item.slots["map"] for item in items if item.path)
        questions = [
            *(question for item in items for question in item.asked),
            *(form.question for form in derived),
            *(route_question(name, "", "") for name in maps),
        ]
        said = [item.answer for item in items] + [form.answer for form in derived]
        return Router(questions, said)

    def _is_strange(self, name: str) -> bool:
        return name not in self._lexicon and name not in self._answered
