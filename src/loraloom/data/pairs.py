"""What a row of preferences says: a prompt and two answers of which one is better, or one answer that
is good or bad.

Where there is no column `prompt`, or both answers repeat it, the prompt is what the two have in common
at their beginning. Of a conversation with one verdict it is all before the last turn.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any, cast

from loraloom.data.conversation import entries, is_talk, pairs_of, read_messages, says_something

SIDES = ("chosen", "rejected")
"""The two answers of a pair, by their role."""

Said = str | list[Mapping[str, Any]]
"""A text, or the entries of a list of messages."""


def prompt_and_answers(
    row: Mapping[str, Any], columns: Mapping[str, str]
) -> tuple[Said, tuple[Said, ...]]:
    """The prompt of a row and its answers, all of them texts or all of them messages.

    Args:
        columns: role -> column. Without the role `prompt`, the answers begin with it; of texts it may
            stand alone too, in the role `opening`.
    """
    roles = SIDES if "chosen" in columns else ("completion",)
    said = tuple(_said(row[columns[role]]) for role in roles)
    if "prompt" in columns:
        prompt, said = _alike(_asked(row, columns, "prompt"), said)
        return prompt if isinstance(prompt, str) else [*earlier(row, columns), *prompt], said
    if len(said) == 1:
        return ("", said) if isinstance(said[0], str) else (said[0][:-1], (said[0][-1:],))
    first, second = said
    if "opening" in columns and isinstance(first, str) and isinstance(second, str):
        opening = str(_asked(row, columns, "opening"))
        return opening, (first.removeprefix(opening), second.removeprefix(opening))
    common = _common(first, second)
    return first[:common], tuple(answer[common:] for answer in said)


def is_conversation(value: Any) -> bool:
    """Whether a cell holds messages: a list of them, or one alone."""
    return isinstance(value, Mapping) or is_talk(value)


def has_own_prompt(row: Mapping[str, Any], columns: Mapping[str, str]) -> bool:
    """Whether both sides of a pair begin with what stands in the row's `prompt` already, and go on."""
    prompt, (chosen, rejected) = prompt_and_answers(row, columns)
    if not prompt:
        return False
    if isinstance(prompt, str) or isinstance(chosen, str) or isinstance(rejected, str):
        return all(
            str(answer).startswith(str(prompt)) and len(answer) > len(prompt)
            for answer in (chosen, rejected)
        )
    said = read_messages(prompt)
    if is_conversation(row[columns["prompt"]]):
        return all(read_messages(answer)[: len(said)] == said for answer in (chosen, rejected))
    # A prompt that is a text names one turn of the user: the first, or the one that is answered.
    asked = [m for m in read_messages(chosen[: _common(chosen, rejected)]) if m["role"] == "user"]
    return any(said[0].get("content") == turn.get("content") for turn in (*asked[:1], *asked[-1:]))


def is_same(row: Mapping[str, Any], columns: Mapping[str, str]) -> bool:
    """Whether the two answers of a pair say the same."""
    chosen, rejected = (_said(row[columns[role]]) for role in SIDES)
    if isinstance(chosen, str) or isinstance(rejected, str):
        return str(chosen).strip() == str(rejected).strip()
    return read_messages(chosen) == read_messages(rejected)


def is_empty(answer: Said) -> bool:
    """Whether an answer says nothing."""
    if isinstance(answer, str):
        return not answer.strip()
    said = read_messages(answer)
    return not any(message["role"] == "assistant" and says_something(message) for message in said)


def earlier(row: Mapping[str, Any], columns: Mapping[str, str]) -> list[Mapping[str, Any]]:
    """The turns of a row's history, as messages."""
    return [
        {"role": role, "content": text}
        for pair in pairs_of(row.get(columns.get("history", "")))
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]


def opens_talk(value: Any) -> bool:
    """Whether a cell holds messages that begin with another turn than an answer."""
    return is_conversation(value) and read_messages(_said(value))[0]["role"] != "assistant"


def _asked(row: Mapping[str, Any], columns: Mapping[str, str], role: str) -> Said:
    """What a column asks, with the input behind it where a row has one."""
    asked = _said(row[columns[role]])
    given = row.get(columns.get("input", ""))
    return f"{asked}\n\n{given}" if given and isinstance(asked, str) else asked


def _said(value: Any) -> Said:
    if isinstance(value, Mapping):
        return [cast(Mapping[str, Any], value)]
    return list(entries(value)) if is_talk(value) else value


def _alike(prompt: Said, said: Sequence[Said]) -> tuple[Said, tuple[Said, ...]]:
    """Texts as messages, where the other side of the row has messages."""
    if isinstance(prompt, str) and not any(isinstance(answer, str) for answer in said):
        return [{"role": "user", "content": prompt}], tuple(said)
    if isinstance(prompt, str):
        return prompt, tuple(said)
    return prompt, tuple(
        [{"role": "assistant", "content": answer}] if isinstance(answer, str) else answer
        for answer in said
    )


def _common(chosen: Said, rejected: Said) -> int:
    """How many characters or messages at the beginning of both sides are their prompt.

    Of texts it ends before white space, which then begins both answers: no word is cut in two.
    """
    if not isinstance(chosen, str) and not isinstance(rejected, str):
        return _same_at_start(read_messages(chosen), read_messages(rejected))
    shared = str(chosen)[: _same_at_start(str(chosen), str(rejected))]
    words = shared.rstrip()
    if words == shared:
        words = words[: len(words) - len(words.split()[-1])].rstrip() if words else ""
    return len(words)


def _same_at_start(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How many items the beginnings of both have in common, by halving."""
    ends = range(1, min(len(one), len(other)) + 1)
    return bisect_left(ends, True, key=lambda end: one[:end] != other[:end])
