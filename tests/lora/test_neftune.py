"""Noise on embeddings: its size, its place, and that it is nobody else's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers as tf
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from loraloom.errors import ModelError
from loraloom.lora.neftune import Noise, input_embeddings, neftune_noise, noisy_embeddings


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    more=st.integers(0, 6),
    alpha=st.floats(0.5, 15),
    seed=st.integers(0, 2**62),
    features=st.integers(1, 8),
)
def test_noise_is_bounded_ends_with_the_row_and_knows_no_padding(
    lengths: list[int], more: int, alpha: float, seed: int, features: int
) -> None:
    noise, longest = Noise(0, len(lengths), alpha, seed, tuple(lengths)), max(lengths)
    like = torch.empty(0, dtype=torch.float64)
    padded = neftune_noise(noise, longest + more, features, like)
    assert torch.equal(padded[:, :longest], neftune_noise(noise, longest, features, like))
    for row, length in zip(padded, lengths, strict=True):
        assert not row[length:].any()
        assert float(row.abs().max()) <= alpha / (length * features) ** 0.5 * (1 + 1e-6)


def test_noise_is_uniform_at_the_size_of_the_paper() -> None:
    noise = neftune_noise(Noise(0, 8, 5.0, 3, (200,) * 8), 200, 64, torch.empty(0))
    size = 5.0 / (200 * 64) ** 0.5
    assert float(noise.max()) == pytest.approx(size, rel=1e-3) and float(noise.min()) == pytest.approx(
        -size, rel=1e-3
    )
    assert float(noise.std()) == pytest.approx(size / 3**0.5, rel=0.01)
    assert abs(float(noise.mean())) < size / 100


def test_only_the_rows_of_the_candidate_are_touched_and_only_within() -> None:
    embedding = nn.Embedding(11, 6)
    model: Any = SimpleNamespace(
        config=SimpleNamespace(is_encoder_decoder=False), get_input_embeddings=lambda: embedding
    )
    ids = torch.randint(11, (4, 5))
    clean = embedding(ids)
    with noisy_embeddings(model, [Noise(1, 3, 5.0, 0, (5, 3))]):
        noisy = embedding(ids)
    changed = (noisy != clean).any(-1)
    assert (
        not changed[[0, 3]].any()
        and changed[1].all()
        and changed[2].tolist() == [True] * 3 + [False] * 2
    )
    assert torch.equal(embedding(ids), clean)


def test_another_step_draws_other_noise() -> None:
    first, second = (
        neftune_noise(Noise(0, 1, 5.0, seed, (4,)), 4, 3, torch.empty(0)) for seed in (1, 2)
    )
    assert not torch.equal(first, second)


def test_of_an_encoder_decoder_the_encoder_reads_noise_and_a_shared_table_is_refused() -> None:
    config = tf.T5Config(
        vocab_size=11, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, decoder_start_token_id=0
    )
    model = tf.T5ForConditionalGeneration(config)
    assert input_embeddings(model) is model.encoder.embed_tokens
    model.set_input_embeddings(nn.Embedding(11, 8))
    with pytest.raises(ModelError, match="encoder and decoder share one embedding module"):
        input_embeddings(model)


def test_a_model_that_reads_characters_has_no_embedding_to_add_noise_to() -> None:
    small = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 24,
    }
    with pytest.raises(ModelError, match="CanineForSequenceClassification has none"):
        input_embeddings(tf.CanineForSequenceClassification(tf.CanineConfig(**small)))
