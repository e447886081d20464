"""An answer in pieces is the one that comes at once, and what was read of a prompt is not read again."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import transformers as tf

from loraloom.evals.streaming import Memory, streamed
from loraloom.evals.writing import continuations

VOCAB = 300


class Bytes:
    """A tokenizer of bytes: characters of several tokens come in pieces."""

    eos_token_id = None

    def decode(self, ids: Any, **_: Any) -> str:
        numbers = ids.tolist() if isinstance(ids, torch.Tensor) else ids
        return bytes(number for number in numbers if number < 256).decode("utf-8", "replace")


def llama(**more: Any) -> Any:
    torch.manual_seed(0)
    config = tf.LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        initializer_range=0.3,
        max_position_embeddings=64,
        eos_token_id=None,
        **more,
    )
    return tf.LlamaForCausalLM(config).eval()


OPTIONS: dict[str, Any] = {"task": "causal_lm", "pad_id": 0, "max_new_tokens": 12}


def test_the_pieces_are_the_answer() -> None:
    model, pieces = llama(), list[str]()
    found = streamed(model, [1, 2, 3], Bytes(), told=pieces.append, **OPTIONS)
    (whole,) = continuations(model, [[1, 2, 3]], Bytes(), **OPTIONS)
    assert found.text == whole
    assert "".join(pieces) == whole
    assert found.ending == "length"


@pytest.mark.parametrize("shared", [0, 4, 9])
def test_a_memory_changes_no_answer(shared: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, memory, read = llama(), Memory(), list[int]()
    first = [5, 6, 7, 8, 9, 10, 11, 12, 13]
    next_ = [*first[:shared], 40, 41, 42]
    streamed(model, first, Bytes(), memory=memory, **OPTIONS)
    forward = model.forward

    def counted(*args: Any, **given: Any) -> Any:
        read.append(given["input_ids"].shape[1])
        return forward(*args, **given)

    monkeypatch.setattr(model, "forward", counted)
    found = streamed(model, next_, Bytes(), memory=memory, **OPTIONS)
    assert read[0] == len(next_) - shared
    assert found.text == streamed(llama(), next_, Bytes(), **OPTIONS).text


def test_a_memory_takes_the_answer_too() -> None:
    model, memory = llama(), Memory()
    streamed(model, [5, 6, 7], Bytes(), memory=memory, **OPTIONS)
    assert memory.ids[:3] == [5, 6, 7]
    assert len(memory.ids) == 3 + OPTIONS["max_new_tokens"] - 1
    assert memory.take(memory.ids) is not None, "the same again: its last token is read once more"
    assert memory.take([5, 6]) is None, "taken once"


def test_keys_that_cannot_be_cut_are_not_kept() -> None:
    torch.manual_seed(0)
    config = tf.MistralConfig(
        vocab_size=VOCAB,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=24,
        sliding_window=4,
    )
    model, memory = tf.MistralForCausalLM(config).eval(), Memory()
    streamed(model, [5, 6, 7, 8, 9], Bytes(), memory=memory, **OPTIONS)
    again = streamed(model, [5, 6, 7, 8, 10], Bytes(), memory=memory, **OPTIONS)
    assert memory.ids == []
    assert again == streamed(copy.deepcopy(model), [5, 6, 7, 8, 10], Bytes(), **OPTIONS)


def test_an_answer_can_be_stopped() -> None:
    model, pieces = llama(), list[str]()
    count = iter(range(100))
    found = streamed(
        model, [1, 2, 3], Bytes(), told=pieces.append, stopped=lambda: next(count) >= 3, **OPTIONS
    )
    assert found.ending == "interrupted"
    assert "".join(pieces) == found.text


def test_an_answer_ends_for_a_reason() -> None:
    model = llama()
    model.generation_config.eos_token_id = list(range(VOCAB))
    assert streamed(model, [1, 2], Bytes(), **OPTIONS).ending == "stop"
    assert streamed(llama(), [1] * 60, Bytes(), **OPTIONS).ending == "positions"
