"""What is written again with another answer: found where it asks the same in other words, and made one
item with what it corrects."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from loraloom.errors import RequestError
from loraloom.recall.forms import FILLERS
from loraloom.recall.items import MemoryItem, key_of, relation_of, same_answer
from loraloom.recall.lexicon import words_of
from loraloom.recall.state import State

ONLY_ASKING = FILLERS | set(
    re.findall(r"\w+", "called know name now please question quick remember s say tell")
)
"""Words that may stand around what is asked for and change nothing of it."""
OF_A_KIND = re.compile(r"\b(which|what)\s+\w+\s+(?=(?:is|was|are|were)\b)", re.IGNORECASE)
"""How "Which city is the capital" begins: it names a kind of what is asked for, no other relation."""


def asks_the_same(question: str, stored: str) -> bool:
    """Whether a question is the stored one, or asks for its relation of its subject, among words that
    only ask.

    The stored question, or the subject, has to be there as it is, its words side by side: "the mother of
    Ada's father" has the words of "the father of Ada's mother".
    """
    question = OF_A_KIND.sub(r"\1 ", question)
    related, words = relation_of(stored), words_of(question)
    if f" {key_of(stored)} " in f" {key_of(question)} ":
        return words - words_of(stored) <= ONLY_ASKING
    if related is None or not re.search(rf"\b{re.escape(related.subject)}\b", question, re.IGNORECASE):
        return False
    needed = words_of(related.relation) | words_of(related.subject)
    return needed <= words and words - needed <= ONLY_ASKING


def corrected(old: MemoryItem, new: MemoryItem) -> MemoryItem:
    """`new` in the place of `old`, asked for in the words of both.

    In other words it is the stored question that has the new answer: all that is made of it, templates
    and what follows, is taught anew then.
    """
    if new.key == old.key:
        return replace(new, supersedes=old.id, forms=_each_once(new.question, *new.forms, *old.forms))
    slots = {name: new.answer if said == old.answer else said for name, said in old.slots.items()}
    return replace(
        new,
        kind=old.kind,
        question=old.question,
        forms=_each_once(old.question, *new.asked, *old.forms),
        slots=slots,
        types=new.types or old.types,
        supersedes=old.id,
    )


def check_corrections(items: Sequence[MemoryItem], state: State, where: str) -> None:
    """See that every item that says which one it corrects can take its place.

    Raises:
        RequestError: there is no such item, or it is not kept, or another one of this write corrects it.
    """
    taken: set[str] = set()
    for item in items:
        if item.supersedes is None:
            continue
        found = state.entries.get(item.supersedes)
        same = state.by_key().get(item.key)
        fault = None
        if found is None:
            fault = "there is no such item"
        elif found.standing != "kept":
            fault = f"it is {found.standing} already"
        elif found.item.path:
            fault = "it is a way on a map: write the right way from its start to its goal"
        elif found.id in taken:
            fault = "two rows of this write do"
        elif same is not None and same is not found and not same_answer(same.item.answer, item.answer):
            fault = f"`{same.id}` asks exactly that and says `{same.item.answer}`: correct that one"
        if fault is not None:
            raise RequestError(
                f"`{item.question}` cannot correct `{item.supersedes}`: {fault}",
                where=where,
                next="loraloom recall report lists the items; nothing was written",
            )
        taken.add(item.supersedes)


def _each_once(question: str, *forms: str) -> tuple[str, ...]:
    """Other ways to ask, without those that are the question but for what changes nothing."""
    found = {key_of(form): form for form in reversed(forms)}
    found.pop(key_of(question), None)
    return tuple(reversed(found.values()))
