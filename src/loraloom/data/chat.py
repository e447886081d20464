"""Conversations, pairs and texts as causal rows: rendered once, to ids, with only the right tokens supervised.

Conversations go through the tokenizer's own chat template. An assistant turn is found by prefix difference: the
render of the messages before it (with the opening of an answer) and the render through it must both begin the render
of the whole; what lies between is the turn, its end token included. Where a template rewrites earlier turns, its own
{% generation %} marks are used if it has them; else each assistant turn becomes a row of its own, ending with that
turn, which is what the model is shown when it has to answer there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from loraloom.data.forms import Message
from loraloom.data.rows import Row, causal_row
from loraloom.data.tokens import Frame, Span, Tokenizer, document_end, ids_and_spans, ids_of
from loraloom.errors import ModelError, TemplateError

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


def chat_rows(conversations: Sequence[tuple[str, Sequence[Message]]], tokenizer: Tokenizer) -> list[Row]:
    """Rows of (origin, messages); assistant turns are supervised, the first message never.

    A conversation gives one row, or one row an assistant turn where the template rewrites earlier turns.
    A row without any supervised token is returned all the same; the caller counts it.

    Raises:
        ModelError: the tokenizer has no chat template.
        TemplateError: it refuses a conversation, or hides where its turns begin; the message names the row.
    """
    if not tokenizer.chat_template:
        raise ModelError(
            "the tokenizer has no chat template, and the data are conversations",
            need="a template that says how this model marks its turns",
            next="choose a chat model (its name often ends in Instruct or Chat), or write the data as prompt and completion",
        )
    marked = _GENERATION.search(str(tokenizer.chat_template)) is not None
    endings = _turn_ends(tokenizer)
    rows: list[Row | None] = []
    texts: list[str] = []
    spans: list[list[Span]] = []
    for origin, messages in conversations:
        whole = _render(messages, tokenizer, origin)
        found = _turns(messages, whole, tokenizer, origin)
        if found is None and marked:
            rows.append(_by_marks(messages, tokenizer))
            continue
        for text, turns in [(whole, found)] if found is not None else _turn_by_turn(messages, tokenizer, origin):
            rows.append(None)
            texts.append(text)
            spans.append([_trimmed(text, turn, endings) for turn in turns])
    encoded = iter(ids_and_spans(texts, spans, tokenizer))
    return [causal_row(*next(encoded)) if row is None else row for row in rows]


def pair_rows(pairs: Sequence[tuple[str, str]], tokenizer: Tokenizer, frame: Frame) -> list[Row]:
    """Rows of (prompt, completion), joined as they are; the completion and the end of the document are supervised.

    The ids begin with exactly those that the prompt alone has, since that is what the model is shown in use.
    """
    prompts = ids_of([prompt for prompt, _ in pairs], tokenizer)
    joined = ids_of([prompt + completion for prompt, completion in pairs], tokenizer)
    apart = [i for i, (prompt, ids) in enumerate(zip(prompts, joined, strict=True)) if ids[: len(prompt)] != prompt]
    # Here a token spans prompt and completion in the joined text, so the two are put together as ids.
    for i, completion in zip(apart, ids_of([pairs[i][1] for i in apart], tokenizer), strict=True):
        joined[i] = prompts[i] + completion
    end = document_end(tokenizer, frame)
    rows: list[Row] = []
    for prompt, ids in zip(prompts, joined, strict=True):
        given = len(frame.opening) + len(prompt)
        whole = [*frame.opening, *ids, *end]
        completed = len(ids) > len(prompt)  # an end alone would teach to say nothing
        rows.append(causal_row(whole, (np.arange(len(whole)) >= given) & completed))
    return rows


def text_rows(texts: Sequence[str], tokenizer: Tokenizer, frame: Frame) -> list[Row]:
    """Rows of raw text: everything is supervised but the first token; the document's end is part of it."""
    end = document_end(tokenizer, frame)
    rows: list[Row] = []
    for ids in ids_of(texts, tokenizer):
        whole = [*frame.opening, *ids, *end]
        rows.append(causal_row(whole, np.full(len(whole), bool(ids))))
    return rows


def prompt_ids(prompt: str | Sequence[Message], tokenizer: Tokenizer, *, continued: bool) -> list[int]:
    """What a model reads before it answers. With a chat template, a text is a user's turn.

    Args:
        continued: the answer goes on where the prompt ends, so that the prompt must not end in EOS (a text that is to be
            translated should).
    """
    if tokenizer.chat_template or not isinstance(prompt, str):
        turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        return list(
            tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=True, return_dict=True)["input_ids"]
        )
    ids: list[int] = list(tokenizer([prompt])["input_ids"][0])
    if continued and len(ids) > 1 and ids[-1] == tokenizer.eos_token_id:
        ids.pop()
    return ids


def _render(messages: Sequence[Message], tokenizer: Tokenizer, origin: str, *, answer: bool = False) -> str:
    try:
        return tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=answer)
    except Exception as error:  # a template is a program of the model's author: it may raise anything
        raise TemplateError(
            "the model's chat template refuses this conversation",
            where=origin,
            got=str(error) or type(error).__name__,
            need=f"roles as the template wants them; here they are {', '.join(str(m['role']) for m in messages)}",
            next="repair or remove this row",
        ) from error


def _turns(messages: Sequence[Message], whole: str, tokenizer: Tokenizer, origin: str) -> list[Span] | None:
    """Where each assistant turn stands in the render of the whole; None if prefixes do not tell."""
    spans: list[Span] = []
    for index, message in enumerate(messages):
        if message["role"] != "assistant" or index == 0:
            continue
        before = _render(messages[:index], tokenizer, origin, answer=True)
        last = index == len(messages) - 1
        through = whole if last else _render(messages[: index + 1], tokenizer, origin)
        if not (through.startswith(before) and whole.startswith(through)):
            return None
        spans.append((len(before), len(through)))
    return spans


def _turn_by_turn(messages: Sequence[Message], tokenizer: Tokenizer, origin: str) -> list[tuple[str, list[Span]]]:
    """One render an assistant turn, up to its end, with that turn alone supervised."""
    found: list[tuple[str, list[Span]]] = []
    for index, message in enumerate(messages):
        if message["role"] != "assistant" or index == 0:
            continue
        before = _render(messages[:index], tokenizer, origin, answer=True)
        through = _render(messages[: index + 1], tokenizer, origin)
        if not through.startswith(before):
            raise TemplateError(
                "the model's chat template hides where the answer begins",
                where=origin,
                got=f"message {index + 1} changes what stands before it",
                need="a template whose render only grows, or one with {% generation %} marks",
                next="write the data as prompt and completion, or repair the template",
            )
        found.append((through, [(len(before), len(through))]))
    return found


def _by_marks(messages: Sequence[Message], tokenizer: Tokenizer) -> Row:
    encoded = tokenizer.apply_chat_template(
        list(messages),
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
        tokenizer_kwargs={"return_offsets_mapping": True},
    )
    ids: list[int] = list(encoded["input_ids"])
    offsets: list[Span] = [tuple(offset) for offset in encoded["offset_mapping"]]
    supervised = np.asarray(encoded["assistant_masks"], dtype=np.bool_)
    special = set(tokenizer.all_special_ids)
    for i in range(1, len(ids)):
        # The marks come back without the later bytes of a last character, and some templates close them before the
        # end token; a model so trained would never stop.
        ends_turn = ids[i] in special and ids[i - 1] not in special
        supervised[i] |= supervised[i - 1] and (offsets[i] == offsets[i - 1] or ends_turn)
    return causal_row(ids, supervised)


def _turn_ends(tokenizer: Tokenizer) -> tuple[str, ...]:
    """Added tokens that are seen as such: the ends of turns are among them."""
    contents = (str(token.content) for token in tokenizer.added_tokens_decoder.values())
    return tuple(content for content in contents if content and content == content.strip())


def _trimmed(text: str, span: Span, endings: tuple[str, ...]) -> Span:
    """Without the white space after the end token: generation stops before it."""
    first, last = span
    turn = text[first:last].rstrip()
    return (first, first + len(turn)) if endings and turn.endswith(endings) else span
