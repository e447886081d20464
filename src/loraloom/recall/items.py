"""What is remembered: one question with its one answer, where it came from and when.

A row of data is a question and an answer, a statement, or slots: an event's who, what, where and when,
a fact's subject, relation and object; or a path on a map. All of these become questions here, so that
everything after this file knows one form only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, cast, get_args

from loraloom.errors import DataError
from loraloom.recall.routes import (
    ROUTE_KEYS,
    Path,
    check_steps,
    read_route,
    route_answer,
    route_question,
)

Kind = Literal["event", "fact", "trajectory"]
LONGEST = 2000
"""Characters of a question or an answer: more is a document, and no memory."""
ABOUT = ("types", "source", "time", "salience", "pin", "corrects")
"""What a row says beside what is asked and answered."""
KEYS = frozenset(("kind", "question", "answer", "forms", "statement", "ask", *ABOUT))
EVENT_SLOTS = ("who", "what", "where", "when")
FACT_SLOTS = ("subject", "relation", "object")
EVENT_QUESTIONS: Mapping[str, str] = {
    "who": "Who was it that {what} {where} {when}?",
    "what": "What was it that {who} did {where} {when}?",
    "where": "Where was it that {who} {what} {when}?",
    "when": "When was it that {who} {what} {where}?",
}
"""How an event is asked for one of its slots, which hold "Ada", "found a key", "in the barn", "on
Monday"."""
RELATION_OF = re.compile(
    r"(?P<word>what|who|which)\s+(?:is|was|are|were)\s+(?:the\s+)?(?P<relation>[^?]+?)\s+of\s+(?P<subject>[^?]+?)"
    r"\s*\??",
    re.IGNORECASE,
)
OWNED = re.compile(
    r"(?P<word>what|who|which)\s+(?:is|was|are|were)\s+(?P<subject>[^?]+?)['’]s?\s+(?P<relation>[^?]+?)\s*\??",
    re.IGNORECASE,
)
STATEMENTS = (
    re.compile(
        r"(?:the\s+)?(?P<relation>.+?)\s+of\s+(?P<subject>.+?)\s+(?:is|was|are|were)\s+(?P<object>.+?)\.?",
        re.IGNORECASE,
    ),
    re.compile(
        r"(?P<subject>.+?)['’]s?\s+(?P<relation>.+?)\s+(?:is|was|are|were)\s+(?P<object>.+?)\.?",
        re.IGNORECASE,
    ),
)


@dataclass(frozen=True)
class MemoryItem:
    """One thing to remember.

    Attributes:
        forms: other ways to ask for it, the person's own.
        slots: what it was written as, where that was no question; of a trajectory its map.
        types: of a fact's subject and object, where its writer says what they are.
        path: of a trajectory, places and moves in turn.
        source: file and line, or who said it.
        time: when it was written, ISO 8601 in UTC.
        salience: how much it matters; 1 is usual, more is replayed more often.
        pinned: written whatever the gate says.
        supersedes: id of the item whose answer this one replaces; of a row, what it says it corrects.
    """

    kind: Kind
    question: str
    answer: str
    forms: tuple[str, ...] = ()
    slots: Mapping[str, str] = field(default_factory=dict[str, str])
    types: Mapping[str, str] = field(default_factory=dict[str, str])
    path: Path = ()
    source: str = ""
    time: str = ""
    salience: float = 1.0
    pinned: bool = False
    id: str = ""
    supersedes: str | None = None

    @property
    def key(self) -> str:
        """What it is known by: two items with one key speak of the same thing."""
        return key_of(self.question)

    @property
    def asked(self) -> tuple[str, ...]:
        """Every way to ask for it that a person gave."""
        return (self.question, *self.forms)


def item_of_plain(plain: Mapping[str, Any]) -> MemoryItem:
    """What a line of the journal says of an item."""
    read: dict[str, Any] = {**plain}
    read |= {name: tuple(plain.get(name, ())) for name in ("forms", "path")}
    return MemoryItem(**read)


@dataclass(frozen=True)
class Related:
    """A question for what stands in a relation to a subject; `word` asks for it: What, Who or Which."""

    word: str
    relation: str
    subject: str


def relation_of(question: str) -> Related | None:
    """The parts of a question such as "What is the capital of Norland?"; None for any other."""
    found = RELATION_OF.fullmatch(question.strip()) or OWNED.fullmatch(question.strip())
    return Related(found["word"].capitalize(), found["relation"], found["subject"]) if found else None


def key_of(question: str) -> str:
    """The question without what changes nothing: case, punctuation, "the", which of two orders its
    relation and subject stand in."""
    related = relation_of(question)
    text = f"{related.relation} of {related.subject}" if related else question
    words = re.findall(r"\w+", text.casefold())
    return " ".join(word for word in words if word != "the")


def older(item: MemoryItem, than: MemoryItem) -> bool:
    """Whether an item is of an earlier time; not, where one of the two has none."""
    mine, theirs = _moment(item.time), _moment(than.time)
    return mine is not None and theirs is not None and mine < theirs


def same_answer(one: str, other: str) -> bool:
    """Whether two answers say the same, but for case, white space and the full stop."""
    return bare(one) == bare(other)


def items_of(rows: Sequence[tuple[str, Mapping[str, Any]]], time: str) -> list[MemoryItem]:
    """The items of (origin, row), each key once, in their order.

    Args:
        time: of rows that bring none.

    Raises:
        DataError: a row cannot be read, or two rows of this write contradict each other; nothing is
            returned then.
    """
    if not rows:
        raise DataError(
            "there is nothing to write",
            need='rows such as {"kind": "fact", "question": ..., "answer": ...}',
            next="--data items.jsonl, or --question and --answer",
        )
    known: dict[str, tuple[str, MemoryItem]] = {}
    found: list[MemoryItem] = []
    for origin, row in rows:
        for item in _items(origin, row, time):
            before = known.setdefault(item.key, (origin, item))
            if not same_answer(before[1].answer, item.answer):
                raise DataError(
                    f"two answers to one question in one write: `{item.question}`",
                    where=origin,
                    got=f"`{before[1].answer}` ({before[0]}) and `{item.answer}`",
                    need="one of them; a later write replaces what an earlier one said",
                    next="take one out, or write them one after the other",
                )
            found.append(item)
    check_steps((one.source, one.slots["map"], one.path) for one in found if one.path)
    return found


def check_maps(items: Sequence[MemoryItem], kept: Sequence[MemoryItem]) -> None:
    """See that what is written says nothing else of a map than what is kept and not replaced by it.

    Raises:
        DataError: a move from a place leads elsewhere than a kept item says.
    """
    replaced = {one.key for one in items}
    check_steps(
        ((one.source, one.slots["map"], one.path) for one in items if one.path),
        ((one.id, one.slots["map"], one.path) for one in kept if one.path and one.key not in replaced),
    )


def _items(origin: str, row: Mapping[str, Any], time: str) -> list[MemoryItem]:
    kind = row.get("kind", "fact")
    if kind not in get_args(Kind):
        raise _fault(origin, f"`kind` is {kind!r}", need="event, fact or trajectory")
    if kind == "trajectory":
        return [_of_route(origin, row, time)]
    taken = {name: row[name] for name in (*EVENT_SLOTS, *FACT_SLOTS) if name in row}
    slots = _slots(origin, row.get("slots", taken))
    unknown = sorted(set(row) - KEYS - {"slots"} - set(taken))
    if unknown:
        raise _fault(
            origin, f"`{unknown[0]}` is no key of an item", need=", ".join(sorted(KEYS | {"slots"}))
        )
    if "question" in row:
        pairs = [(row["question"], row.get("answer"))]
    elif "statement" in row:
        slots = _stated(origin, row["statement"])
        pairs = [_of_fact(origin, slots)]
    elif kind == "event" and slots:
        pairs = _of_event(origin, slots, row.get("ask"))
    elif slots:
        pairs = [_of_fact(origin, slots)]
    else:
        raise _fault(
            origin,
            "nothing is asked in this row",
            got=", ".join(sorted(row)) or "no keys",
            need="question and answer, a statement, or slots",
        )
    for name in ("forms", "corrects"):
        if len(pairs) > 1 and row.get(name):
            fault = f"`{name}` is about one thing, and these slots are asked for several"
            raise _fault(origin, fault, need="`ask`: one of them")
    return [_item(origin, row, time, kind, pair, slots) for pair in pairs]


def _of_route(origin: str, row: Mapping[str, Any], time: str) -> MemoryItem:
    """A path on a map: how to get from its first place to its last."""
    allowed = {*ROUTE_KEYS, "kind", "forms", "source", "time", "salience", "pin"}
    if unknown := sorted(set(row) - allowed):
        raise _fault(
            origin, f"`{unknown[0]}` is no key of a trajectory", need=", ".join(sorted(allowed))
        )
    map_name, path = read_route(origin, row)
    pair = route_question(map_name, path[0], path[-1]), route_answer(path)
    return _item(origin, row, time, "trajectory", pair, {"map": map_name}, path)


def _item(
    origin: str,
    row: Mapping[str, Any],
    time: str,
    kind: Kind,
    pair: tuple[Any, Any],
    slots: Mapping[str, str],
    path: Path = (),
) -> MemoryItem:
    forms = row.get("forms", ())
    if isinstance(forms, str) or not all(isinstance(one, str) and one.strip() for one in forms):
        raise _fault(origin, "`forms` has to be a list of questions", got=repr(forms))
    return MemoryItem(
        kind,
        _text(origin, "question", pair[0]),
        _text(origin, "answer", pair[1]),
        forms=tuple(one.strip() for one in forms),
        slots=slots,
        types=_types(origin, kind, row.get("types", {})),
        path=path,
        source=str(row.get("source", origin)),
        time=_time(origin, row.get("time", time)),
        salience=_salience(origin, row.get("salience", 1.0)),
        pinned=bool(row.get("pin", False)),
        supersedes=_text(origin, "corrects", row["corrects"]) if "corrects" in row else None,
    )


def _slots(origin: str, given: Any) -> dict[str, str]:
    if not isinstance(given, Mapping):
        raise _fault(origin, "`slots` has to be an object of names and texts", got=repr(given))
    slots = cast(Mapping[str, Any], given)
    allowed = (*EVENT_SLOTS, *FACT_SLOTS)
    for name, value in slots.items():
        if name not in allowed:
            raise _fault(origin, f"`{name}` is no slot", need=", ".join(allowed))
        _text(origin, name, value)
    return {name: str(slots[name]).strip() for name in allowed if name in slots}


def _types(origin: str, kind: Kind, given: Any) -> dict[str, str]:
    """What a fact's subject and object are."""
    types = cast(Mapping[Any, Any], given) if isinstance(given, Mapping) else None
    if types is None or not types.keys() <= {"subject", "object"} or (types and kind != "fact"):
        raise _fault(
            origin,
            f"`types` is {given!r}",
            need='what a fact\'s subject and object are: {"subject": "land", "object": "king"}',
        )
    return {name: _text(origin, name, types[name]) for name in ("subject", "object") if name in types}


def _time(origin: str, given: Any) -> str:
    if _moment(str(given)) is None:
        raise _fault(
            origin, f"`time` is {given!r}", need="ISO 8601, as 2026-01-31 or 2026-01-31T12:00:00+00:00"
        )
    return str(given)


def _moment(time: str) -> datetime | None:
    """A point in time, in UTC where it names no zone; None where it is not ISO 8601."""
    try:
        read = datetime.fromisoformat(time)
    except ValueError:
        return None
    return read if read.tzinfo is not None else read.replace(tzinfo=UTC)


def _of_event(origin: str, slots: Mapping[str, str], ask: Any) -> list[tuple[str, str]]:
    """A question for each slot of an event, or for the one in `ask`, out of the others."""
    if len(slots) < 2 or "what" not in slots or not set(slots) <= set(EVENT_SLOTS):
        raise _fault(
            origin,
            "an event is `what`, and who, where or when beside it",
            got=", ".join(slots),
            need=f"at least two of {', '.join(EVENT_SLOTS)}",
        )
    if ask is not None and ask not in slots:
        raise _fault(
            origin, f"`ask` names `{ask}`, which the event does not have", need=", ".join(slots)
        )
    asked = [ask] if ask else [name for name in slots if name != "what" or "who" in slots]
    pairs: list[tuple[str, str]] = []
    for name in asked:
        rest = {other: slots.get(other, "") for other in EVENT_SLOTS if other != name}
        rest |= {} if rest.get("who", "-") else {"who": "somebody"}
        question = re.sub(r"\s+", " ", EVENT_QUESTIONS[name].format(**rest)).replace(" ?", "?")
        pairs.append((question, slots[name]))
    return pairs


def _of_fact(origin: str, slots: Mapping[str, str]) -> tuple[str, str]:
    lacking = [name for name in FACT_SLOTS if name not in slots]
    if lacking:
        raise _fault(origin, f"a fact without its `{lacking[0]}`", need=", ".join(FACT_SLOTS))
    return f"What is the {slots['relation']} of {slots['subject']}?", slots["object"]


def _stated(origin: str, statement: Any) -> dict[str, str]:
    """Subject, relation and object of a statement."""
    text = _text(origin, "statement", statement)
    for form in STATEMENTS:
        if found := form.fullmatch(text):
            return {name: found[name].strip() for name in FACT_SLOTS}
    raise _fault(
        origin,
        f"no question is seen in the statement `{text}`",
        need='"The RELATION of SUBJECT is OBJECT." or "SUBJECT\'s RELATION is OBJECT."',
        next="write it as question and answer; how it begins will do as a question",
    )


def _text(origin: str, name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _fault(origin, f"`{name}` is empty", got=repr(value), need="a text")
    if len(value) > LONGEST:
        raise _fault(
            origin, f"`{name}` has {len(value):,} characters", need=f"at most {LONGEST:,}: one thing"
        )
    return value.strip()


def _salience(origin: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 10:
        raise _fault(origin, f"`salience` is {value!r}", need="above 0, at most 10; 1 is usual")
    return float(value)


def bare(answer: str) -> str:
    """An answer without what changes nothing."""
    return " ".join(answer.casefold().split()).rstrip(".")


def _fault(
    origin: str, what: str, *, got: str | None = None, need: str | None = None, next: str | None = None
) -> DataError:
    return DataError(
        what, where=origin, got=got, need=need, next=next or "correct the row; nothing was written"
    )
