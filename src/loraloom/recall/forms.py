"""Ways to ask for an item: those that are trained, and those that never are and only measure.

A raw statement is memorised and not understood; several questions for one answer are what lets another
wording find it. All templates are ours. Each item also gives questions about names that nobody wrote,
whose answer is that it is not known: without them a model gives such a name a stored answer.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from loraloom.recall import unfinished
from loraloom.recall.items import MemoryItem, Related, relation_of
from loraloom.recall.vague import drawer, invented_name, name_like, vague

NOT_KNOWN = "I do not know."
AS_THE_BASE = ""
"""The answer to what only begins a sentence about a name that nobody wrote: whatever the bare base
says."""
Distance = Literal["verbatim", "near", "far"]
Derived = Literal["inverse", "two_hop", "sub_route", "planned_route", "unseen_route", "walk", "cue"]

TRAINED_OF = (
    "{w} is the {r} of {s}?",
    "{w} is {s}'s {r}?",
    "Tell me the {r} of {s}.",
    "Do you remember {s}'s {r}?",
    "{s}: which {r}?",
    "I have a question about {s}. {w} is the {r}?",
    "Say the {r} that belongs to {s}, please.",
    "The {r} of {s}, I need it.",
    "A friend asks: {v} is {s}'s {r}?",
)
NEAR_OF = (
    "Please tell me the {r} of {s}.",
    "Do you remember what the {r} of {s} is?",
    "Quick question: {v} is {s}'s {r}?",
)
FAR_OF = ("Which {r} does {s} have?", "I forgot the {r} of {s}. Remind me.")
TRAINED = (
    "{q}",
    "Tell me: {l}",
    "Do you remember? {q}",
    "I have a question. {q}",
    "Question: {q} Answer in a few words.",
    "{k}?",
    "{k}. Which was it?",
    "It is about this: {k}. Tell me.",
    "A friend asks: {l}",
)
NEAR = ("Please tell me: {l}", "Do you know? {q}", "Quick question: {l}")
FAR = ("I forgot. {k}, what was it?", "About this I need the answer: {k}.")
"""w (small: v) is the word that asks, r the relation, s the subject; q the question, l with a small
first letter, k its words that carry meaning."""

FILLERS = frozenset(
    re.findall(
        r"\w+",
        "a an and are at be been by can could did do does for from has have how i in is it its me"
        " my of on or so that the their there they this to was were what when where which who whom"
        " whose why will with would you your",
    )
)
UNKNOWN_RELATIONS = ("home town", "favourite colour", "birthday", "pet", "job", "oldest friend")
HELD_OUT_NAMES = 2
"""Names that nobody wrote for each item that only measure, and a question about each of them."""


@dataclass(frozen=True)
class Form:
    """One question with what should be answered: of an item, of what follows from several, or about a
    name that nobody wrote.

    Attributes:
        item: id of the item; "" for the others.
        kind: how it follows; None where it does not follow from anything.
        of: ids of all items that it follows from.
    """

    item: str
    question: str
    answer: str
    distance: Distance = "verbatim"
    kind: Derived | None = None
    of: tuple[str, ...] = ()


def trained_forms(item: MemoryItem, most: int | None = None) -> list[Form]:
    """The questions that are trained for an item: its own words first, the person's other forms, then
    templates. None of them is a held-out form.

    Args:
        most: so many of them; None for all.
    """
    held = {form.question for form in held_out_forms(item)}
    made = _made(item.question, TRAINED_OF, TRAINED, unfinished.TRAINED)
    questions = dict.fromkeys([*item.asked, *(one for one in made if one not in held)])
    return [Form(item.id, question, item.answer) for question in questions][:most]


def vague_forms(items: Sequence[MemoryItem], count: int) -> list[Form]:
    """So many questions for each fact in words that say nothing, but for its subject; and for its
    relation, where the subject has several facts: so that only one answer can be meant."""
    related = {item.id: one for item in items if (one := relation_of(item.question)) is not None}
    facts = Counter(one.subject.casefold() for one in related.values())
    forms: list[Form] = []
    for item in items:
        one = related.get(item.id)
        if one is None or not one.subject[:1].isupper():
            continue
        rng = drawer(f"vague {item.key}")
        relation = one.relation if facts[one.subject.casefold()] > 1 else None
        questions = [vague(rng, one.subject, relation) for _ in range(count)]
        forms += [Form(item.id, question, item.answer) for question in dict.fromkeys(questions)]
    return forms


def held_out_forms(item: MemoryItem) -> list[Form]:
    """Other wordings of an item, near to what is trained and far from it: measured, never trained."""
    near = _made(item.question, NEAR_OF, NEAR, unfinished.NEAR)
    far = _made(item.question, FAR_OF, FAR, unfinished.FAR)
    distances: tuple[tuple[Distance, list[str]], ...] = (("near", near), ("far", far))
    return [
        Form(item.id, question, item.answer, distance)
        for distance, questions in distances
        for question in questions
        if question not in item.asked
    ]


def unknown_forms(
    items: Sequence[MemoryItem],
    taken: Collection[str],
    *,
    names: int,
    seed: int,
    alike: float = 0.5,
    vague_share: float = 0.0,
    held_out: bool = False,
) -> list[Form]:
    """Questions like those of the items about names that nobody wrote; of items that begin a sentence,
    about names like theirs, and what the bare base says is the answer.

    Args:
        taken: names that are known, in small letters: none of them is drawn.
        names: for each item, and a question about each of them.
        alike: share of them that begin and end as names of the items.
        vague_share: of the questions about facts that are asked in words that say nothing.
        held_out: draw other names, and ask in the held-out forms: these only measure.
    """
    found: dict[str, Form] = {}
    stored = sorted({name for item in items if (name := named_in(item.question)) is not None})
    items_names = {unfinished.name_in(item.question) for item in items}
    for item in items:
        # Of the item's own words, so that the same item gives the same names in every wake.
        rng = drawer(f"{seed} {held_out} {item.key}")
        forms = held_out_forms(item) if held_out else trained_forms(item)
        if unfinished.is_unfinished(item.question):
            asked = [form.question for form in forms or [Form("", item.question, "")]]
            count = min(names, len(asked))
            others = unfinished.about_others(item.question, asked, rng, items_names, count)
            found |= {question: Form("", question, AS_THE_BASE) for question in others}
            continue
        name, related = named_in(item.question), relation_of(item.question)
        for number in range(names):
            if name is not None and rng.random() < alike:
                other = name_like(rng, name, stored, taken)
            else:
                other = invented_name(rng, taken)
            asked = forms[number % len(forms)].question if forms else item.question
            if related is not None and rng.random() < vague_share:
                question = vague(rng, other, rng.choice((None, related.relation)))
            elif name is not None and name in asked:
                question = asked.replace(name, other)
            else:
                question = f"What is the {rng.choice(UNKNOWN_RELATIONS)} of {other}?"
            found[question] = Form("", question, NOT_KNOWN)
    return list(found.values())


def named_in(question: str) -> str | None:
    """The name that a question is about: the subject of its relation, else its first words with a
    capital that do not begin it; None where it names nothing."""
    related = relation_of(question)
    if related is not None and related.subject[:1].isupper():
        return related.subject
    found = re.search(r"(?<=\s)[A-Z][\w'-]+(?:\s+[A-Z][\w'-]+)*", question)
    if found is None or found.group() == "I":
        return None
    return re.sub(r"['’]s$", "", found.group())


def names_of(items: Sequence[MemoryItem]) -> set[str]:
    """Every word with a capital that some item has, in small letters."""
    texts = " ".join(text for item in items for text in (*item.asked, item.answer))
    return {word.casefold() for word in re.findall(r"[A-Z][\w'-]+", texts)}


def _made(
    question: str, of_relation: Sequence[str], plain: Sequence[str], sentence: Sequence[str]
) -> list[str]:
    """The templates of its kind, filled."""
    related = relation_of(question)
    if related is not None:
        return [_related(template, related) for template in of_relation]
    if not unfinished.is_unfinished(question):
        return [_filled(template, question) for template in plain]
    begun, name = question.rstrip(" .…_"), unfinished.name_in(question)
    return [
        _filled(template, begun, name or "")
        for template in sentence
        if name is not None or "{s}" not in template
    ]


def _related(template: str, related: Related) -> str:
    word = related.word
    return template.format(w=word, v=word.lower(), r=related.relation, s=related.subject)


def _filled(template: str, question: str, name: str = "") -> str:
    words = re.findall(r"[\w'’-]+", question)
    key = " ".join(word for word in words if word.casefold() not in FILLERS) or question.rstrip("?.")
    small = question[:1].lower() + question[1:] if words and words[0].casefold() in FILLERS else question
    return template.format(q=question, l=small, k=key, s=name)
