"""Conversations as causal rows: rendered once, to ids, with only the right tokens supervised.

An answer is found by prefix difference: the render of the messages before it (with the opening of an
answer) and the render through it must both begin the render of the whole; what lies between is the
answer, its end token included. Where a template rewrites earlier turns, its own {% generation %} marks
are used if it has them; else each answer becomes a row of its own, ending with that turn, which is what
the model is shown when it has to answer there.

Templates of reasoning models may write less than the model has to: they leave out what was thought, and
open it themselves where an answer is due. There the row is the prompt as it is served, and after it what
the model has to write: what was thought, the closing tag, the answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from loraloom.config.asked import System
from loraloom.data.conversation import REASONING, Conversation, Message
from loraloom.data.render import Renderer, Tag, added_texts
from loraloom.data.rows import Row, causal_row
from loraloom.data.tokens import Ids, Span, Tokenizer, ids_and_spans, ids_of
from loraloom.data.untrusted_text import ids_of_talk
from loraloom.errors import TemplateError

_THOUGHT = re.compile(r"\s*(?:<(?P<angle>[A-Za-z][\w-]*)>|\[(?P<square>[A-Z][A-Z_]*)\])")


@dataclass(frozen=True)
class Rendered:
    """The text of one row, and where what is learnt stands in it.

    Attributes:
        apart: the first learnt character is where a served prompt ends, so that prompt
            and answer are tokenised apart.
    """

    text: str
    spans: tuple[Span, ...]
    apart: bool = False


def chat_rows(talks: Sequence[tuple[str, Conversation]], renderer: Renderer) -> list[Row]:
    """Rows of (origin, conversation); the answers that are learnt are supervised.

    A conversation gives one row, or one row a learnt answer where the template rewrites earlier turns;
    the `cluster` of a row is the place of its conversation. A row without any supervised token is
    returned all the same; the caller counts it.

    Raises:
        TemplateError: the template refuses conversations, or hides where their answers begin; the
            message names the first and counts them.
    """
    rows: list[Row | None] = []
    owners: list[int] = []
    texts: list[Rendered] = []
    faults: list[tuple[str, Conversation, TemplateError]] = []
    for number, (origin, talk) in enumerate(talks):
        fitted = renderer.fit(talk)
        try:
            found = rendered(fitted, renderer)
            rows += [_by_marks(fitted, renderer)] if found is None else [None] * len(found)
            owners += [number] * (1 if found is None else len(found))
            texts += found or ()
        except TemplateError as error:
            faults.append((origin, talk, error))
    if faults:
        raise _summed(faults, len(talks), renderer)
    encoded = iter(_encoded(texts, renderer.tokenizer))
    return [
        replace(next(encoded) if row is None else row, cluster=owner)
        for row, owner in zip(rows, owners, strict=True)
    ]


def rendered(fitted: Conversation, renderer: Renderer) -> list[Rendered] | None:
    """The rows of one fitted conversation as text; None where only the template's own
    marks tell what the assistant says."""
    if not fitted.answers:
        return [Rendered(renderer.text(fitted), ())]
    whole = _in_one(fitted, renderer)
    if whole is not None:
        return [whole]
    if renderer.marked and renderer.left_open is None:
        return None
    return [_alone(fitted, index, renderer) for index in fitted.answers]


def prompt_ids(
    prompt: str | Sequence[Message],
    tokenizer: Tokenizer,
    *,
    continued: bool,
    system: System = "auto",
    tools: Sequence[Any] = (),
) -> list[int]:
    """What a model reads before it answers. With a chat template, a text is a user's turn, and marks of
    the template in it stay text.

    Args:
        continued: the answer goes on where the prompt ends, so that the prompt must not end in EOS (a
            text that is to be translated should).
        system, tools: as in training (`Renderer`, `Conversation`).
    """
    if tokenizer.chat_template or not isinstance(prompt, str):
        turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        renderer = Renderer(tokenizer, system)
        talk = Conversation(tuple(turns), (False,) * len(turns), tuple(tools))
        return ids_of_talk(renderer.fit(talk), renderer)
    return text_ids(prompt, tokenizer, continued=continued)


def text_ids(text: str, tokenizer: Tokenizer, *, continued: bool) -> list[int]:
    """A text as the tokenizer frames it. `continued`: as in `prompt_ids`."""
    ids: list[int] = list(tokenizer([text])["input_ids"][0])
    if continued and len(ids) > 1 and ids[-1] == tokenizer.eos_token_id:
        ids.pop()
    return ids


def _in_one(talk: Conversation, renderer: Renderer) -> Rendered | None:
    """The whole conversation with every learnt answer marked; None if prefixes do not
    tell where they are."""
    whole = renderer.text(talk)
    spans: list[Span] = []
    for index in talk.answers:
        before = renderer.text(talk, end=index, answer=True)
        through = whole if index == len(talk.messages) - 1 else renderer.text(talk, end=index + 1)
        if not (through.startswith(before) and whole.startswith(through)):
            return None
        if _thought_is_lost(talk.messages[index], through[len(before) :]):
            return None
        spans.append((len(before), len(through)))
    return Rendered(whole, _trimmed(whole, spans, renderer))


def _alone(talk: Conversation, index: int, renderer: Renderer) -> Rendered:
    """The conversation up to the end of one answer, with that answer alone marked."""
    before = renderer.text(talk, end=index, answer=True)
    through = renderer.text(talk, end=index + 1)
    if not through.startswith(before) or _thought_is_lost(talk.messages[index], through[len(before) :]):
        through = before + _written_after(before, through, talk.messages[index], renderer)
        return Rendered(through, _trimmed(through, [(len(before), len(through))], renderer), apart=True)
    return Rendered(through, _trimmed(through, [(len(before), len(through))], renderer))


def _written_after(before: str, through: str, message: Message, renderer: Renderer) -> str:
    """What the model has to write after the prompt `before`, where the template does
    not show it in `through`.

    Raises:
        TemplateError: it cannot be told.
    """
    tag = renderer.left_open
    header = before
    if tag is not None and not through.startswith(before) and before.endswith(tag.opening + tag.space):
        header = before[: len(before) - len(tag.opening + tag.space)]
    if not through.startswith(header):
        raise TemplateError(
            "the model's chat template hides where the answer begins",
            got="what it writes before an answer is not what it opens an answer with",
            need="a template whose render only grows, or one with {% generation %} marks",
            next=(
                "repair the template's {% if add_generation_prompt %} part, or take another model's"
                " template"
            ),
        )
    visible = through[len(header) :]
    opened = header != before
    content = str(message.get("content") or "")
    own = _tag_of(content) or tag
    if own is not None and own.closing in content:
        # The row has the thought in its text: it is written as the row has it, up to the closing tag.
        thought, _, answer = content.rpartition(own.closing)
        if opened and tag is not None:
            # The prompt ends with the opening tag already.
            thought = thought.lstrip().removeprefix(own.opening)
            thought = thought.removeprefix(tag.space) if tag.space else thought
        gap = answer[: len(answer) - len(answer.lstrip())]
        return f"{thought}{own.closing}{gap}{visible.lstrip() if gap else visible}"
    # The row has the thought apart from its text, or none: then the model has to close an empty one.
    assert tag is not None, "without a tag nothing is lost, and nothing was opened"
    thought = str(message.get(REASONING[0]) or "").strip("\n")
    return (
        f"{thought}\n{tag.closing}\n\n{visible.lstrip()}"
        if tag.space
        else f"{thought}{tag.closing}{visible}"
    )


def _thought_is_lost(message: Message, written: str) -> bool:
    """Whether what a message says was thought, between tags, is not in what the template wrote of it."""
    content = message.get("content")
    tag = _tag_of(content) if isinstance(content, str) else None
    return tag is not None and tag.closing not in written


def _tag_of(content: str) -> Tag | None:
    """The tag around what was thought before the answer: <think>...</think>, or as another model has it.

    The opening may be missing, since many templates write it for the model.
    """
    if found := _THOUGHT.match(content):
        name = found["angle"] or found["square"]
        tag = (
            Tag(f"<{name}>", f"</{name}>", "\n")
            if found["angle"]
            else Tag(f"[{name}]", f"[/{name}]", "")
        )
        return tag if tag.closing in content else None
    return Tag("<think>", "</think>", "\n") if "</think>" in content else None


def _by_marks(talk: Conversation, renderer: Renderer) -> Row:
    """The row by the template's own marks; an answer that is not learnt is taken out by
    the number of its stretch."""
    answers = [i for i, message in enumerate(talk.messages) if message["role"] == "assistant"]
    ids, supervised = _marked(talk, None, renderer)
    for index in answers:
        if index not in talk.answers:
            first = _stretches(_marked(talk, index, renderer)[1]) if index else 0
            last = _stretches(_marked(talk, index + 1, renderer)[1])
            supervised = _without_stretches(supervised, first, last)
    return causal_row(ids, supervised)


def _marked(talk: Conversation, end: int | None, renderer: Renderer) -> tuple[Ids, Any]:
    """Token ids of the first `end` messages, and which of them the assistant says [T]."""
    encoded = renderer.marks(talk, end=end)
    ids: Ids = list(encoded["input_ids"])
    offsets: list[Span] = [tuple(offset) for offset in encoded["offset_mapping"]]
    supervised = np.asarray(encoded["assistant_masks"], dtype=np.bool_)
    special = set(renderer.tokenizer.all_special_ids)
    for i in range(1, len(ids)):
        # The marks come back without the later bytes of a last character, and some templates close them
        # before the end token; a model so trained would never stop.
        ends_turn = ids[i] in special and ids[i - 1] not in special
        supervised[i] |= supervised[i - 1] and (offsets[i] == offsets[i - 1] or ends_turn)
    return ids, supervised


def _stretches(marks: Any) -> int:
    return int(np.count_nonzero(np.diff(marks.astype(np.int8), prepend=0) == 1))


def _without_stretches(marks: Any, first: int, last: int) -> Any:
    """`marks` [T] without its stretches number `first` to `last`, the last not included."""
    number = np.cumsum(np.diff(marks.astype(np.int8), prepend=0) == 1) - 1
    return marks & ~((number >= first) & (number < last))


def _encoded(texts: Sequence[Rendered], tokenizer: Tokenizer) -> Iterator[Row]:
    joined = ids_and_spans([one.text for one in texts], [one.spans for one in texts], tokenizer)
    for one, (ids, supervised) in zip(texts, joined, strict=True):
        if one.apart:
            ((first, last),) = one.spans
            prompt, answer = ids_of([one.text[:first], one.text[first:last]], tokenizer)
            ids = prompt + answer
            supervised = np.arange(len(ids)) >= len(prompt)
        yield causal_row(ids, supervised)


def _trimmed(text: str, spans: Sequence[Span], renderer: Renderer) -> tuple[Span, ...]:
    """Without the white space after the end token: generation stops before it."""
    endings = added_texts(renderer.tokenizer)
    found: list[Span] = []
    for first, last in spans:
        turn = text[first:last].rstrip()
        found.append((first, first + len(turn)) if endings and turn.endswith(endings) else (first, last))
    return tuple(found)


def _summed(
    faults: Sequence[tuple[str, Conversation, TemplateError]], total: int, renderer: Renderer
) -> TemplateError:
    """One message for all conversations that a template cannot render."""
    origin, talk, error = faults[0]
    count = f"{len(faults):,} of {total:,} rows" if total > 1 else "this row"
    what = (
        error.what.replace("this conversation", count)
        if "this conversation" in error.what
        else f"{error.what} in {count}"
    )
    return TemplateError(
        what, where=origin, got=error.got, need=error.need, next=_advice(talk, renderer) or error.next
    )


def _advice(talk: Conversation, renderer: Renderer) -> str | None:
    """What would make the template take a conversation, found by trying the known
    cures; None where none works."""

    def takes(changed: Conversation) -> bool:
        try:
            renderer.text(renderer.fit(changed))
        except TemplateError:
            return False
        return True

    if takes(talk):
        return None
    if not renderer.merges and takes(_without_roles(talk, "system", "developer")):
        return "--set data.system=merge puts the system text before the user's next message"
    if takes(Conversation(talk.messages, talk.learnt)):
        return "leave out the tools, or take a model whose template writes them"
    if takes(_joined(talk)):
        return "join turns of one speaker that follow each other into one, and begin with the user's"
    return None


def _without_roles(talk: Conversation, *roles: str) -> Conversation:
    kept = [message for message in talk.messages if message["role"] not in roles]
    return Conversation(tuple(kept), (False,) * len(kept), talk.tools, talk.variables)


def _joined(talk: Conversation) -> Conversation:
    """Turns of one speaker joined, and what comes before the user's first turn left out."""
    turns: list[Message] = []
    for message in talk.messages:
        if turns and turns[-1]["role"] == message["role"]:
            turns[-1] = {
                **turns[-1],
                "content": f"{turns[-1].get('content')}\n\n{message.get('content')}",
            }
        elif turns or message["role"] != "assistant":
            turns.append(dict(message))
    return Conversation(tuple(turns), (False,) * len(turns), talk.tools, talk.variables)
