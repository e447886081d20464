"""Framing, and the mask of spans: by offsets it must be what it is by prefixes."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from loraloom.data.tokens import Frame, document_end, frame_of, ids_and_spans, ids_of


class WithoutOffsets:
    """A tokenizer that cannot tell where in the text a token stands."""

    is_fast = False

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def __call__(self, *args: Any, **options: Any) -> Any:
        assert "return_offsets_mapping" not in options
        return self._tokenizer(*args, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


def test_tokens_around_a_text_are_found(
    byte_tokenizer: Any, bos_tokenizer: Any, bert_tokenizer: Any
) -> None:
    assert frame_of(byte_tokenizer) == Frame((), ())
    assert frame_of(bos_tokenizer) == Frame((1,), ())
    assert frame_of(bert_tokenizer) == Frame((2,), (3,))
    for tokenizer in (byte_tokenizer, bos_tokenizer, bert_tokenizer):
        frame = frame_of(tokenizer)
        bare = ids_of(["the lazy dog."], tokenizer)[0]
        assert [*frame.opening, *bare, *frame.closing] == list(tokenizer("the lazy dog.")["input_ids"])


def test_documents_end_as_the_tokenizer_has_it(
    byte_tokenizer: Any, bos_tokenizer: Any, bert_tokenizer: Any
) -> None:
    assert document_end(byte_tokenizer, Frame((), ())) == (byte_tokenizer.eos_token_id,)
    assert document_end(bos_tokenizer, Frame((1,), ())) == (bos_tokenizer.eos_token_id,)
    assert document_end(bert_tokenizer, Frame((2,), (3,))) == (3,)
    assert bert_tokenizer.eos_token_id is None
    assert document_end(bert_tokenizer, Frame((), ())) == ()


@given(parts=st.lists(st.text("ab é😀\n.", min_size=1, max_size=8), min_size=2, max_size=5))
def test_masks_by_offset_and_by_prefix_agree(
    byte_tokenizer: Any, trimming_tokenizer: Any, parts: list[str]
) -> None:
    """Parts are parted by an end token, as turns are, so that no token spans a boundary."""
    ends = [part + "<|im_end|>" for part in parts]
    text = "".join(ends)
    stops = np.cumsum([len(end) for end in ends]).tolist()
    spans = [(stop - len(end), stop) for end, stop in list(zip(ends, stops, strict=True))[1::2]]
    (ids, mask), (trimmed_ids, trimmed), (slow_ids, slow) = (
        ids_and_spans([text], [spans], tokenizer)[0]
        for tokenizer in (byte_tokenizer, trimming_tokenizer, WithoutOffsets(byte_tokenizer))
    )
    assert ids == trimmed_ids == slow_ids
    assert mask.tolist() == slow.tolist()
    supervised = [token for token, inside in zip(ids, mask.tolist(), strict=True) if inside]
    assert byte_tokenizer.decode(supervised, clean_up_tokenization_spaces=False) == "".join(
        text[a:b] for a, b in spans
    )
    assert trimmed.tolist() == mask.tolist()


def test_a_token_across_the_boundary_belongs_to_the_prompt(byte_tokenizer: Any) -> None:
    text = "hello world"
    for tokenizer in (byte_tokenizer, WithoutOffsets(byte_tokenizer)):
        pieces = [byte_tokenizer.decode([token]) for token in ids_of([text], tokenizer)[0]]
        across = next(i for i, piece in enumerate(pieces) if i and len(piece) > 1)
        inside_it = len("".join(pieces[:across])) + 1
        _, mask = ids_and_spans([text], [[(inside_it, len(text))]], tokenizer)[0]
        assert mask[across + 1 :].all()
        assert not mask[: across + 1].any()


def test_a_trimmed_space_before_the_answer_stays_in_the_prompt(trimming_tokenizer: Any) -> None:
    ids, mask = ids_and_spans(["one: \ntwo"], [[(5, 9)]], trimming_tokenizer)[0]
    supervised = [token for token, inside in zip(ids, mask.tolist(), strict=True) if inside]
    assert trimming_tokenizer.decode(supervised, clean_up_tokenization_spaces=False) == "\ntwo"
