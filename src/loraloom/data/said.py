"""What a row says, in a normal form: rows that say the same are equal in it, however they are written.

The form is coarser than any tokenizer: what differs here may read alike to a model (`Encoded` looks at
the ids once more), but what is alike here is the same to a person too.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from loraloom.data.conversation import REASONING, Message
from loraloom.data.forms import conversation, source_and_target
from loraloom.data.preferences import verdict
from loraloom.data.recognise import Recognised
from loraloom.data.sides import as_completions, completions
from loraloom.records import COMPARED

Turns = tuple[tuple[str, str], ...]
"""(speaker, text) of each turn, the text in its normal form; the speaker of plain text is ""."""

ANSWER = "assistant"

_UNSEEN = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]"
)
"""Invisible characters: controls, zero-width spaces and joiners, marks of direction,
variation selectors."""


def normal(text: str) -> str:
    """A text without what does not matter: case, white space, how its characters are
    composed, what cannot be seen."""
    if not text.isascii():
        text = unicodedata.normalize(
            "NFKC", _UNSEEN.sub("", unicodedata.normalize("NFKC", text)).casefold()
        )
    elif not text.isprintable():
        text = _UNSEEN.sub("", text)
    return " ".join(text.casefold().split())


def turns(row: Mapping[str, Any], recognised: Recognised) -> Turns:
    """What the row says, turn by turn; of a classifier's row without its label."""
    columns = recognised.columns
    if recognised.task == "seq_cls" or recognised.format == "text":
        return tuple(
            ("", _normal_of(row.get(column))) for role, column in columns.items() if role != "label"
        )
    if recognised.task == "seq2seq_lm":
        source, target = source_and_target(row, recognised.format, columns)
        return (("user", normal(source)), (ANSWER, normal(target)))
    if recognised.task in COMPARED:
        return _judged(row, recognised)
    talk = conversation(row, recognised)
    beside = (
        [_normal_of(list(talk.tools)), _normal_of(dict(talk.variables))]
        if talk.tools or talk.variables
        else []
    )
    spoken = [(str(message["role"]), _text(message)) for message in talk.messages]
    return (*(("beside", text) for text in beside), *(turn for turn in spoken if turn != ("system", "")))


def _judged(row: Mapping[str, Any], recognised: Recognised) -> Turns:
    """The prompt and the answers of a row of preferences; only the first answer counts as one, so that
    rows with another second answer are still asked the same."""
    read_as = as_completions(recognised)
    first, *others = (turns(one, read_as) for one in completions(row, recognised))
    said = [("other", text) for other in others for _, text in other]
    judged = [("verdict", str(verdict(row.get(recognised.columns.get("verdict", "")))))]
    return (*first, *said, *(judged if recognised.format == "kto" else ()))


def key_of(said: Turns) -> str:
    """Equal for equal turns."""
    return _digest(said).hexdigest()


def asked_keys(said: Turns) -> list[str]:
    """One key for all that stands before each answer: rows with a key in common are asked the same."""
    digest = _digest(())
    keys = list[str]()
    for speaker, text in said:
        if speaker == ANSWER:
            keys.append(digest.hexdigest())
        _feed(digest, speaker, text)
    return keys


def _digest(said: Turns) -> Any:
    digest = hashlib.blake2b(digest_size=16)
    for speaker, text in said:
        _feed(digest, speaker, text)
    return digest


def _feed(digest: Any, speaker: str, text: str) -> None:
    digest.update(f"{speaker}\0{text}\0\0".encode("utf-8", "surrogatepass"))


def _text(message: Message) -> str:
    """What a message says: its reasoning, text and calls, but not its ids, dates and names."""
    calls = [call.get("function") or call for call in message.get("tool_calls") or ()]
    parts = (
        _normal_of(message.get(REASONING[0])),
        _normal_of(message.get("content")),
        *map(_normal_of, calls),
    )
    return " ".join(part for part in parts if part)


def _normal_of(value: Any) -> str:
    """The normal form of any value; the keys of objects are in order."""
    if value is None or isinstance(value, str):
        return normal(value or "")
    return normal(json.dumps(value, ensure_ascii=False, sort_keys=True, default=str))
