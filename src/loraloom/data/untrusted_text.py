"""What people say stays text: a mark of the chat template in it does not become a token of control.

A tokenizer makes one token of `<|im_end|>`, whoever wrote it, and a user's text with that mark would end
the turn and begin another, as anyone it likes. So what a person wrote is rendered with a sign of its own
in each mark's place, which tells where the marks come to stand; the whole is tokenised as always, and
there each such token gives way to those of its letters. All other tokens are what they would have been.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from loraloom.data.conversation import Conversation, Message
from loraloom.data.render import Renderer
from loraloom.data.tokens import Ids, Span, Tokenizer, ids_and_spans, ids_of

_SIGNS = range(0xE000, 0xF900)
"""Characters that mean nothing in Unicode."""


def ids_of_talk(talk: Conversation, renderer: Renderer) -> Ids:
    """What the model reads before it answers a conversation that was fitted.

    Errors as of `Renderer.ids`, whose ids these are where no message holds a mark.
    """
    marks = control_marks(renderer)
    special = {mark for mark, token in marks.items() if token.special}
    found: list[str] = []
    sign = _unused_sign(talk.messages)

    def hidden(message: Message) -> Message:
        content = message.get("content")
        # An answer may hold marks that the template reads, such as the end of a thought. Special ones
        # were taken out when it was decoded: those that are left were written in letters.
        own = special if message["role"] == "assistant" else set(marks)
        if not isinstance(content, str) or not own:
            return message

        def put(match: re.Match[str]) -> str:
            found.append(match[0])
            return f"{sign}{len(found) - 1}{sign}"

        return {**message, "content": _any_of(own).sub(put, content)}

    messages = tuple(map(hidden, talk.messages))
    if not found:
        return renderer.ids(talk)
    text, spans = _shown(renderer.text(replace(talk, messages=messages), answer=True), sign, found)
    ((ids, inside),) = ids_and_spans([text], [spans], renderer.tokenizer)
    letters = {
        number: _letters(mark, set(renderer.tokenizer.added_tokens_decoder), renderer.tokenizer)
        for number, mark in _numbered(found, renderer.tokenizer).items()
    }
    return [
        one
        for number, is_said in zip(ids, inside, strict=True)
        for one in (letters.get(number, [number]) if is_said else [number])
    ]


def control_marks(renderer: Renderer) -> dict[str, Any]:
    """Added tokens by their text: those that are special, and those that the template itself writes."""
    tokens = renderer.tokenizer.added_tokens_decoder.values()
    return {
        text: token
        for token in tokens
        if (text := str(token.content)).strip() and (token.special or text in renderer.source)
    }


def _any_of(marks: set[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, sorted(marks, key=len, reverse=True))))


def _unused_sign(messages: Sequence[Message]) -> str:
    said = "".join(str(message.get("content")) for message in messages)
    return next(sign for sign in map(chr, _SIGNS) if sign not in said)


def _shown(rendered: str, sign: str, marks: Sequence[str]) -> tuple[str, list[Span]]:
    """The rendered text with the marks in their places, and where these are.

    White space before a mark is counted to it: some tokenizers make one token of both. Of a mark that
    the template cut through, nothing is left.
    """
    pieces = [piece.replace(sign, "") for piece in re.split(f"{sign}([0-9]+){sign}", rendered)]
    text = pieces[0]
    spans: list[Span] = []
    for number, piece in zip(pieces[1::2], pieces[2::2], strict=True):
        start = len(text.rstrip())
        text += marks[int(number)]
        spans.append((start, len(text)))
        text += piece
    return text, spans


def _numbered(marks: Sequence[str], tokenizer: Tokenizer) -> Mapping[int, str]:
    return {
        number: str(token.content)
        for number, token in tokenizer.added_tokens_decoder.items()
        if str(token.content) in marks
    }


def _letters(mark: str, added: set[int], tokenizer: Tokenizer) -> Ids:
    """A mark as tokens of its letters."""
    ids: Ids = list(
        tokenizer([mark], add_special_tokens=False, split_special_tokens=True)["input_ids"][0]
    )
    if not added.intersection(ids):
        return ids
    # Only special tokens can be split that way: another added one is not seen in halves.
    return [one for half in ids_of([mark[:1], mark[1:]], tokenizer) for one in half]
