"""Invented things to remember, from a seed: sessions of facts and events, and questions that measure.

Nothing of it is in any base. Subjects and people have names that are made up, no two questions have one
key, and no answer is much more frequent than another. Some subjects have two facts, and some events
differ from another in one slot that is shown and in the one that is asked for. The names are built
otherwise than those of `forms.invented_name`, as a person's own names would be.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Literal

from loraloom.errors import RequestError
from loraloom.recall.forms import NOT_KNOWN, held_out_forms
from loraloom.recall.items import EVENT_SLOTS, MemoryItem, items_of
from loraloom.recall.workload_words import (
    FAR_OF_EVENT,
    FIRST,
    LAST,
    MIDDLE,
    PLACES,
    RELATIONS,
    THINGS,
    TIMES,
    VERBS,
)

Way = Literal["verbatim", "near", "far", "unseen", "unseen near", "unseen far"]
"""How something is asked: as written, by a template that is not trained, in words by hand; and the same
about a name that nobody wrote."""
NOBODY = -1
MOST = 1000
"""Items: more would use up the names."""
TIME = "2026-01-01T00:00:00+00:00"


@dataclass(frozen=True)
class Asked:
    """A question that measures.

    Attributes:
        item: number of the item over all sessions, from 0; `NOBODY` for a name that nobody wrote.
    """

    item: int
    question: str
    answer: str
    way: Way


@dataclass(frozen=True)
class Workload:
    """Sessions of things to remember, and all questions about them.

    Attributes:
        sessions: rows as `recall write` reads them.
    """

    seed: int
    sessions: tuple[tuple[Mapping[str, str], ...], ...]
    questions: tuple[Asked, ...]

    @property
    def digest(self) -> str:
        """sha256 of everything in it, as JSON with sorted keys and no white space."""
        plain = {
            "seed": self.seed,
            "sessions": self.sessions,
            "questions": [[one.item, one.question, one.answer, one.way] for one in self.questions],
        }
        text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def items(self) -> list[MemoryItem]:
        """Every item, in the order of the sessions."""
        rows = [row for written in self.sessions for row in written]
        return items_of([(f"workload {self.seed}", row) for row in rows], TIME)

    def session_of(self, item: int) -> int:
        """Number of the session, from 0, that an item is in."""
        return item // len(self.sessions[0])

    def until(self, sessions: int) -> Workload:
        """Only its first sessions, with the questions about them."""
        last = sessions * len(self.sessions[0])
        # Questions about nobody follow those of the item that they are like.
        kept = tuple(takewhile(lambda one: one.item < last, self.questions))
        return replace(self, sessions=self.sessions[:sessions], questions=kept)


def workload(seed: int, *, sessions: int = 10, items: int = 20) -> Workload:
    """So many sessions of so many items: events a little more than half, facts the others.

    Raises:
        RequestError: there are not enough names for so many.
    """
    if sessions * items > MOST:
        raise RequestError(
            f"{sessions:,} sessions of {items:,} items are {sessions * items:,}",
            need=f"at most {MOST:,}: there are no more names",
        )
    made = _Maker(seed)
    events = items // 2 + 1
    rows = tuple((*made.events(events), *made.facts(items - events)) for _ in range(sessions))
    written = Workload(seed, rows, ())
    flat = [row for written in rows for row in written]
    asked: list[Asked] = []
    for number, (row, item) in enumerate(zip(flat, written.items, strict=True)):
        known = _asked(number, row, item)
        asked += known
        name = row.get("subject") or (row["who"] if row["ask"] != "who" else None)
        if name is not None:
            other = made.name("person" if "who" in row else made.kinds[name])
            asked += [_of_nobody(one, name, other) for one in _one_of_each(known)]
    return replace(written, questions=tuple(asked))


def shuffled(given: Workload, seed: int) -> Workload:
    """The same with every answer moved to another item: what is trained is false then, and the questions
    still ask for what is true."""
    rows = [dict(row) for written in given.sessions for row in written]
    places = random.Random(seed).sample(rows, len(rows))
    answers = [row[_answer_slot(row)] for row in places]
    for row, answer in zip(places, [*answers[1:], *answers[:1]], strict=True):
        row[_answer_slot(row)] = answer
    size = len(given.sessions[0])
    sessions = tuple(tuple(rows[start : start + size]) for start in range(0, len(rows), size))
    return replace(given, sessions=sessions)


def _answer_slot(row: Mapping[str, str]) -> str:
    return "object" if "object" in row else row["ask"]


def _asked(number: int, row: Mapping[str, str], item: MemoryItem) -> list[Asked]:
    """An item's questions: as written, near, far."""
    near = [form.question for form in held_out_forms(item) if form.distance == "near"]
    asked: list[tuple[Way, list[str]]] = [
        ("verbatim", [item.question]),
        ("near", near),
        ("far", _far(row)),
    ]
    return [
        Asked(number, question, item.answer, way) for way, questions in asked for question in questions
    ]


def _far(row: Mapping[str, str]) -> list[str]:
    if "relation" in row:
        relation = next(one for one in RELATIONS if one.name == row["relation"])
        return [text.format(s=row["subject"]) for text in relation.far]
    past, _, thing = row["what"].partition(" ")
    plain, participle = next((plain, done) for was, plain, done in VERBS if was == past)
    words = {**row, "past": past, "plain": plain, "participle": participle, "thing": thing}
    words |= {"Thing": thing.capitalize(), "When": row["when"][:1].upper() + row["when"][1:]}
    return [text.format(**words) for text in FAR_OF_EVENT[row["ask"]]]


def _one_of_each(known: Sequence[Asked]) -> list[Asked]:
    return list({one.way: one for one in known}.values())


def _of_nobody(one: Asked, name: str, other: str) -> Asked:
    ways: Mapping[Way, Way] = {"verbatim": "unseen", "near": "unseen near", "far": "unseen far"}
    return Asked(NOBODY, one.question.replace(name, other), NOT_KNOWN, ways[one.way])


class _Maker:
    """Draws names and values, each as often as any other of its pool.

    Attributes:
        kinds: of every name that was drawn: person, country, town, river.
    """

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._decks: dict[str, list[str]] = {}
        self.kinds: dict[str, str] = {}
        self._keys: set[tuple[str, ...]] = set()
        self._event = 0
        self._fact = 0

    def name(self, kind: str) -> str:
        """A name of a kind that was not drawn before."""
        while True:
            parts = [FIRST[kind], MIDDLE, LAST[kind]]
            name = "".join(self._rng.choice(part) for part in parts)
            if name not in self.kinds:
                self.kinds[name] = kind
                return name

    def events(self, count: int) -> list[dict[str, str]]:
        """So many events; of four that follow each other, the second is nearly the first."""
        made: list[dict[str, str]] = []
        for number in range(count):
            ask = EVENT_SLOTS[self._event % 4]
            row = self._nearly(made[-1]) if number % 4 == 1 else self._drawn(ask)
            self._event += 1
            made.append(row)
        return made

    def _drawn(self, ask: str) -> dict[str, str]:
        while True:
            values = {name: self._value(name, asked=name == ask) for name in EVENT_SLOTS}
            if self._is_new(values, ask):
                return {"kind": "event", **values, "ask": ask}

    def _nearly(self, row: Mapping[str, str]) -> dict[str, str]:
        """An event that differs in what is asked for and in one slot that is shown."""
        ask = row["ask"]
        shown = [name for name in EVENT_SLOTS if name != ask]
        while True:
            other = self._rng.choice(shown)
            values = {name: row[name] for name in EVENT_SLOTS}
            values |= {name: self._value(name, asked=name == ask) for name in (ask, other)}
            if self._is_new(values, ask):
                return {"kind": "event", **values, "ask": ask}

    def _is_new(self, values: Mapping[str, str], ask: str) -> bool:
        key = tuple("?" if name == ask else values[name] for name in EVENT_SLOTS)
        if key in self._keys:
            return False
        self._keys.add(key)
        return True

    def _value(self, name: str, *, asked: bool) -> str:
        if name == "who":
            return self.name("person")
        if name == "what":
            past = self._dealt("verb", [verb[0] for verb in VERBS])
            return f"{past} {self._dealt('thing', THINGS)}"
        return self._dealt(f"{name} {asked}", PLACES if name == "where" else TIMES)

    def facts(self, count: int) -> list[dict[str, str]]:
        """So many facts; of three that follow each other, the first two are about one subject."""
        made: list[dict[str, str]] = []
        for number in range(count):
            relation = RELATIONS[self._fact % len(RELATIONS)]
            # The relations of one kind of subject follow each other, so the next one fits mostly.
            same = number % 3 == 1 and self.kinds[made[-1]["subject"]] == relation.subject
            subject = made[-1]["subject"] if same else self.name(relation.subject)
            objects = relation.objects
            value = self._dealt(relation.name, objects) if objects else self.name(relation.names)
            row = {"kind": "fact", "subject": subject, "relation": relation.name, "object": value}
            made.append(row)
            self._fact += 1
        return made

    def _dealt(self, deck: str, pool: Sequence[str]) -> str:
        """The next of a shuffled pool, which begins anew when all were dealt."""
        if not self._decks.get(deck):
            self._decks[deck] = self._rng.sample(list(pool), len(pool))
        return self._decks[deck].pop()
