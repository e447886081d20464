"""What in the rows is not used: columns, keys of messages, and whatever a chat template does not write.

Every row is counted. Whether a template writes something is found by rendering a few
rows with and without it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

from loraloom.data.chat import rendered
from loraloom.data.conversation import (
    FLAGS,
    ROLES,
    Conversation,
    Message,
    flags_of,
    from_json,
    leaves_out_nulls,
    role_of,
    speaker,
)
from loraloom.data.render import Renderer
from loraloom.data.table import Table
from loraloom.errors import TemplateError

SAMPLE = 8
"""Rows that are rendered with and without a thing before it counts as not written."""
NAMED = 12
"""Names that one sentence lists."""

Talks = Sequence[tuple[str, Conversation]]


def unused_columns(table: Table, used: Collection[str]) -> list[str]:
    """One sentence that names each column that nothing reads, with the rows that have
    something in it."""
    counts = Counter(
        column
        for row in table.rows
        for column, value in row.items()
        if column not in used and value is not None and value != ""
    )
    return (
        [f"not used: {_counted({f'`{name}`': counts[name] for name in table.columns if counts[name]})}"]
        if counts
        else []
    )


def message_notes(table: Table, columns: Collection[str]) -> list[str]:
    """What the messages in these columns say of what is learnt, and speakers that are not known."""
    context = Counter[str]()
    learnt_too = Counter[str]()
    unknown: dict[str, tuple[str, int]] = {}
    nulls = 0
    for index, row in enumerate(table.rows):
        seen = set[str]()
        asked = set[str]()
        odd = set[str]()
        said = [entry for column in columns for entry in _entries(row.get(column))]
        nulls += any(map(leaves_out_nulls, said))
        for entry in said:
            name = str(speaker(entry))
            is_answer = role_of(name) == "assistant"
            for key, learnt in flags_of(entry).items():
                if is_answer and not learnt:
                    seen.add(key)
                elif not is_answer and learnt and key not in ("weight", "mask", "masked"):
                    # These three say "learnt" of every message by default; the others only where asked.
                    asked.add(key)
            if role_of(name) is None:
                odd.add(name)
        context.update(seen)
        learnt_too.update(asked)
        for name in odd:
            first, count = unknown.get(name, (table.origin(index), 0))
            unknown[name] = (first, count + 1)
    notes = [
        f"answers whose `{key}` is {'1 or true' if not FLAGS[key] else '0 or false'} are read and not"
        f" learnt ({rows_of(rows)})"
        for key, rows in context.items()
    ]
    notes += [
        f"`{key}` is true of messages that are no answers ({rows_of(rows)}): only the assistant's turns"
        " are learnt"
        for key, rows in learnt_too.items()
    ]
    notes += [
        f"the role `{name}` is not known ({rows_of(rows)}, first {origin}): the chat template gets it as"
        f" it is, and nothing that it says is learnt; known are {', '.join(ROLES)}"
        for name, (origin, rows) in unknown.items()
    ]
    if nulls:
        notes.append(
            f"arguments of calls that are null are left out, since Parquet adds them ({rows_of(nulls)})"
        )
    return notes


def system_notes(table: Table, system: str, column: str) -> list[str]:
    """Rows whose system text is not used, since their messages begin with one of their own."""
    count = sum(
        bool(row.get(system))
        and any(
            role_of(str(speaker(entry))) in ("system", "developer")
            for entry in _entries(row.get(column))
        )
        for row in table.rows
    )
    return (
        [f"`{system}` is not used where the messages have a system text of their own ({rows_of(count)})"]
        if count
        else []
    )


def chat_notes(talks: Talks, renderer: Renderer) -> list[str]:
    """What the template does not write of these conversations, and what was read in a
    way that a person should know."""
    notes = [
        *_system(talks, renderer),
        *_roles(talks, renderer),
        *_tools(talks, renderer),
        *_keys(talks, renderer),
    ]
    return [*notes, *_thoughts(talks, renderer), *_ends(talks, renderer)]


def _system(talks: Talks, renderer: Renderer) -> Iterator[str]:
    merged = sum(any(m["role"] in ("system", "developer") for m in talk.messages) for _, talk in talks)
    if merged and renderer.system == "auto" and renderer.merges:
        yield (
            "the chat template refuses system messages: their text is put before the user's next"
            f" message ({rows_of(merged)}); data.system says otherwise"
        )


def _roles(talks: Talks, renderer: Renderer) -> Iterator[str]:
    """Speakers, other than user and assistant, whose words do not appear."""
    names = dict.fromkeys(
        m["role"] for _, talk in talks for m in talk.messages if m["role"] not in ("user", "assistant")
    )
    for role in names:

        def says(talk: Conversation, role: str = role) -> bool:
            return any(m["role"] == role and m.get("content") for m in talk.messages)

        def otherwise(talk: Conversation, role: str = role) -> Conversation:
            return _changed(
                talk,
                lambda m: {**m, "content": f"{m.get('content')} indeed"} if m["role"] == role else m,
            )

        if count := _unwritten(talks, renderer, says, otherwise):
            cure = (
                "; --set data.system=merge puts them before the user's next message"
                if role == "system"
                else ""
            )
            yield (
                f"the chat template does not write messages of the role {role} ({rows_of(count)}){cure}"
            )


def _tools(talks: Talks, renderer: Renderer) -> Iterator[str]:
    if count := _unwritten(
        talks, renderer, lambda talk: bool(talk.tools), lambda talk: replace(talk, tools=())
    ):
        yield (
            f"the chat template has no place for tools ({rows_of(count)}): the model never reads them;"
            " take a model whose template writes tools, or describe them in the system message"
        )


def _keys(talks: Talks, renderer: Renderer) -> Iterator[str]:
    """Keys of messages, and variables, that the template does not read."""
    keys = dict.fromkeys(
        key for _, talk in talks for m in talk.messages for key in m if key not in ("role", "content")
    )
    unwritten = {
        f"`{key}`": _unwritten(talks, renderer, partial(_has_key, key), partial(_without_key, key))
        for key in keys
    }
    if any(unwritten.values()):
        yield f"the chat template does not write these keys of messages: {_counted(unwritten)}"
    names = dict.fromkeys(name for _, talk in talks for name in talk.variables)
    unread = {
        f"`{name}`": _unwritten(
            talks, renderer, partial(_has_variable, name), partial(_without_variable, name)
        )
        for name in names
    }
    if any(unread.values()):
        yield f"the chat template does not read these variables: {_counted(unread)}"


def _has_key(key: str, talk: Conversation) -> bool:
    return any(message.get(key) not in (None, "") for message in talk.messages)


def _without_key(key: str, talk: Conversation) -> Conversation:
    return _changed(
        talk, lambda message: {name: value for name, value in message.items() if name != key}
    )


def _has_variable(name: str, talk: Conversation) -> bool:
    return talk.variables.get(name) is not None


def _without_variable(name: str, talk: Conversation) -> Conversation:
    return replace(talk, variables={key: value for key, value in talk.variables.items() if key != name})


def _thoughts(talks: Talks, renderer: Renderer) -> Iterator[str]:
    """Answers without a thought, where the opening of an answer begins one."""
    if (tag := renderer.left_open) is None:
        return
    answers = [talk.messages[index] for _, talk in talks for index in talk.answers]
    without = sum(
        tag.closing not in str(m.get("content")) and not m.get("reasoning_content") for m in answers
    )
    if without:
        yield (
            f"the chat template opens {tag.opening} where an answer is due, and {without:,} of"
            f" {len(answers):,} answers have nothing in it: they are learnt with an empty one"
        )


def _ends(talks: Talks, renderer: Renderer) -> Iterator[str]:
    ended = sum(any(renderer.ends_itself(m) for m in talk.messages) for _, talk in talks)
    if ended:
        yield (
            f"answers end in {renderer.turn_end} already ({rows_of(ended)}): it is taken off, since the"
            " chat template writes it"
        )


def _unwritten(
    talks: Talks,
    renderer: Renderer,
    has: Callable[[Conversation], bool],
    without: Callable[[Conversation], Conversation],
) -> int:
    """How many rows have something that the template ignores, by the rendered text of a
    few of them; 0 where it is written."""
    places = [index for index, (_, talk) in enumerate(talks) if has(talk)]
    few = min(SAMPLE, len(places))
    sample = [talks[places[i * len(places) // few]][1] for i in range(few)]
    return (
        0
        if any(_texts(talk, renderer) != _texts(without(talk), renderer) for talk in sample)
        else len(places)
    )


def _texts(talk: Conversation, renderer: Renderer) -> list[str] | None:
    """What training reads of a conversation; None where the template refuses it."""
    fitted = renderer.fit(talk)
    try:
        rows = rendered(fitted, renderer)
        return [renderer.text(fitted)] if rows is None else [row.text for row in rows]
    except TemplateError:
        return None


def _changed(talk: Conversation, change: Callable[[Message], Message]) -> Conversation:
    return replace(talk, messages=tuple(change(message) for message in talk.messages))


def _entries(value: Any) -> Iterator[Mapping[str, Any]]:
    found = from_json(value)
    if isinstance(found, list):
        yield from (entry for entry in cast(list[Any], found) if isinstance(entry, Mapping))


def rows_of(count: int) -> str:
    """A count of rows, in words."""
    return "1 row" if count == 1 else f"{count:,} rows"


def _counted(counts: Mapping[str, int]) -> str:
    """Names with their counts, the first few of them; what counts nothing is left out."""
    some = {name: count for name, count in counts.items() if count}
    parts = [f"{name} ({rows_of(count)})" for name, count in list(some.items())[:NAMED]]
    rest = len(some) - len(parts)
    return ", ".join(parts) + (f" and {rest} more" if rest else "")
