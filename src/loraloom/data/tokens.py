"""From text to token ids, many rows at a time, through the few methods of a tokenizer
that this room needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Ids = list[int]
Span = tuple[int, int]
"""First character and the one after the last."""

_BATCH = 2048


class Tokenizer(Protocol):
    """The part of `transformers.PreTrainedTokenizerBase` that is used here."""

    @property
    def is_fast(self) -> bool: ...
    @property
    def eos_token_id(self) -> int | None: ...
    @property
    def chat_template(self) -> Any: ...
    @property
    def all_special_ids(self) -> Sequence[int]: ...
    @property
    def added_tokens_decoder(self) -> dict[int, Any]: ...
    def __call__(self, text: list[str], **options: Any) -> Any: ...
    def decode(self, token_ids: Sequence[int], **options: Any) -> Any: ...
    def apply_chat_template(self, conversation: Any, **options: Any) -> Any: ...


@dataclass(frozen=True)
class Frame:
    """What the tokenizer itself puts around a text, such as [CLS] and [SEP], or a BOS."""

    opening: tuple[int, ...]
    closing: tuple[int, ...]

    @property
    def size(self) -> int:
        return len(self.opening) + len(self.closing)


def frame_of(tokenizer: Tokenizer) -> Frame:
    """Found by tokenising a probe: tokenizers declare their special tokens in too many
    ways to read them off."""
    bare = ids_of(["a"], tokenizer)[0]
    framed: Ids = list(tokenizer(["a"], add_special_tokens=True)["input_ids"][0])
    for start in range(len(framed) - len(bare) + 1):
        if framed[start : start + len(bare)] == bare:
            return Frame(tuple(framed[:start]), tuple(framed[start + len(bare) :]))
    return Frame((), ())


def document_end(tokenizer: Tokenizer, frame: Frame) -> tuple[int, ...]:
    """What closes a text that a model has to learn to end: the tokenizer's own closing,
    else its EOS, else nothing."""
    if frame.closing or tokenizer.eos_token_id is None:
        return frame.closing
    return (tokenizer.eos_token_id,)


def ids_of(texts: Sequence[str], tokenizer: Tokenizer) -> list[Ids]:
    """Token ids of each text, nothing added."""
    found: list[Ids] = []
    for start in range(0, len(texts), _BATCH):
        batch = list(texts[start : start + _BATCH])
        found += tokenizer(batch, add_special_tokens=False, return_attention_mask=False, verbose=False)[
            "input_ids"
        ]
    return found


def ids_and_spans(
    texts: Sequence[str], spans: Sequence[Sequence[Span]], tokenizer: Tokenizer
) -> list[tuple[Ids, NDArray[np.bool_]]]:
    """Token ids of each text, and which tokens lie in one of its spans.

    A token that begins before a span and ends inside it belongs to what comes before:
    at use it is given, not made.
    """
    if not tokenizer.is_fast:
        ids = ids_of(texts, tokenizer)
        return [
            (row, _inside_by_prefix(t, row, s, tokenizer))
            for t, row, s in zip(texts, ids, spans, strict=True)
        ]
    found: list[tuple[Ids, NDArray[np.bool_]]] = []
    for start in range(0, len(texts), _BATCH):
        batch = list(texts[start : start + _BATCH])
        encoded = tokenizer(
            batch,
            add_special_tokens=False,
            return_attention_mask=False,
            return_offsets_mapping=True,
            verbose=False,
        )
        rows = zip(
            encoded["input_ids"], encoded["offset_mapping"], spans[start : start + _BATCH], strict=True
        )
        found += [(row, _inside_by_offset(offsets, row_spans)) for row, offsets, row_spans in rows]
    return found


def _inside_by_offset(offsets: Sequence[Span], spans: Sequence[Span]) -> NDArray[np.bool_]:
    begin, end = np.asarray(offsets, dtype=np.int64).reshape(-1, 2).T
    inside = np.zeros(len(begin), dtype=np.bool_)
    for first, last in spans:
        # Byte-level tokenizers may trim spaces off offsets, which leaves a lone space
        # as (k, k): hence the test of `end`.
        inside |= (begin >= first) & (end > first) & (begin < last)
    return inside


def _inside_by_prefix(
    text: str, ids: Ids, spans: Sequence[Span], tokenizer: Tokenizer
) -> NDArray[np.bool_]:
    """The same without offsets: tokenise the text up to each boundary and see how far
    that agrees with the whole."""
    inside = np.zeros(len(ids), dtype=np.bool_)
    for first, last in spans:
        before, through = ids_of([text[:first], text[:last]], tokenizer)
        inside[_boundary(before, ids) : _boundary(through, ids)] = True
    return inside


def _boundary(part: Ids, whole: Ids) -> int:
    """The first token of `whole` that begins where `part`, a tokenised beginning of its
    text, has ended."""
    same = next(
        (i for i, (a, b) in enumerate(zip(part, whole, strict=False)) if a != b),
        min(len(part), len(whole)),
    )
    return same + 1 if same < len(part) else same  # a token that differs runs across the end of the part
