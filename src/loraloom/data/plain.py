"""Texts and pairs as causal rows: joined as they are, framed once, with only the right
tokens supervised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loraloom.data.rows import Row, causal_row
from loraloom.data.tokens import Frame, Tokenizer, document_end, ids_of


@dataclass(frozen=True)
class Framing:
    """What the tokenizer puts around a text, and how to tell a text that already has it.

    Attributes:
        bos, eos: the texts of these tokens; "" where there is none.
        turn_end: a text that ends a turn, in place of the end of a document.
    """

    frame: Frame
    end: tuple[int, ...]
    bos: str
    eos: str
    turn_end: str = ""

    @classmethod
    def of(cls, tokenizer: Tokenizer, frame: Frame, turn_end: str = "") -> Framing:
        end = document_end(tokenizer, frame)
        return cls(frame, end, _written(frame.opening, tokenizer), _written(end, tokenizer), turn_end)

    def begins(self, text: str) -> bool:
        """Whether a text has the beginning already."""
        return bool(self.bos) and text.lstrip().startswith(self.bos)

    def ends(self, text: str) -> bool:
        """Whether a text has an end already."""
        return any(end and text.rstrip().endswith(end) for end in (self.eos, self.turn_end))

    def unopened(self, text: str) -> str:
        """The text without a beginning of its own: it is added as tokens."""
        return text.lstrip().removeprefix(self.bos) if self.begins(text) else text

    def unclosed(self, text: str) -> str:
        """The text without the end of a document, which is added as tokens, and without
        white space behind any end."""
        if not self.ends(text):
            return text
        text = text.rstrip()
        return text.removesuffix(self.eos) if self.eos else text

    def closing(self, text: str) -> tuple[int, ...]:
        """What ends this text: nothing where a turn's end of its own does."""
        own = self.turn_end and self.turn_end != self.eos and text.rstrip().endswith(self.turn_end)
        return () if own else self.end


def pair_rows(pairs: Sequence[tuple[str, str]], tokenizer: Tokenizer, framing: Framing) -> list[Row]:
    """Rows of (prompt, completion), joined as they are; the completion and the end of
    the document are supervised.

    The ids begin with exactly those that the prompt alone has, since that is what the
    model is shown in use.
    """
    ends = [framing.closing(completion) for _, completion in pairs]
    pairs = [(framing.unopened(prompt), framing.unclosed(completion)) for prompt, completion in pairs]
    prompts = ids_of([prompt for prompt, _ in pairs], tokenizer)
    joined = ids_of([prompt + completion for prompt, completion in pairs], tokenizer)
    apart = [
        i
        for i, (prompt, ids) in enumerate(zip(prompts, joined, strict=True))
        if ids[: len(prompt)] != prompt
    ]
    # Here a token spans prompt and completion in the joined text, so the two are put together as ids.
    for i, completion in zip(apart, ids_of([pairs[i][1] for i in apart], tokenizer), strict=True):
        joined[i] = prompts[i] + completion
    rows: list[Row] = []
    for prompt, ids, end in zip(prompts, joined, ends, strict=True):
        given = len(framing.frame.opening) + len(prompt)
        whole = [*framing.frame.opening, *ids, *end]
        completed = len(ids) > len(prompt)  # an end alone would teach to say nothing
        rows.append(causal_row(whole, (np.arange(len(whole)) >= given) & completed))
    return rows


def text_rows(texts: Sequence[str], tokenizer: Tokenizer, framing: Framing) -> list[Row]:
    """Rows of raw text: everything is supervised but the first token; the document's
    end is part of it."""
    rows: list[Row] = []
    for text, ids in zip(
        texts,
        ids_of([framing.unclosed(framing.unopened(text)) for text in texts], tokenizer),
        strict=True,
    ):
        whole = [*framing.frame.opening, *ids, *framing.closing(text)]
        rows.append(causal_row(whole, np.full(len(whole), bool(ids))))
    return rows


def _written(ids: Sequence[int], tokenizer: Tokenizer) -> str:
    """The text of special tokens; "" where one of them has none."""
    known = tokenizer.added_tokens_decoder
    return (
        "".join(str(known[number].content) for number in ids)
        if all(number in known for number in ids)
        else ""
    )
