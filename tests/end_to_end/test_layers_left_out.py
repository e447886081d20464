"""A model with layers in which an adapter would learn nothing: it is trained, they are
left out, and that is said."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import transformers as tf
from doorway import Door, World


@pytest.fixture
def bart_decoder(world: World, tmp_path: Path) -> Path:
    """The decoder of an encoder-decoder: its cross-attention has no encoder to read."""
    folder = tmp_path / "bart-decoder"
    shutil.copytree(world.llama, folder)
    torch.manual_seed(0)
    config = tf.BartConfig(
        d_model=32,
        decoder_layers=2,
        decoder_attention_heads=4,
        decoder_ffn_dim=48,
        max_position_embeddings=64,
        vocab_size=len(tf.AutoTokenizer.from_pretrained(world.llama)),
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
    )
    tf.BartForCausalLM(config).save_pretrained(folder)
    return folder


def test_it_is_trained_without_them_and_a_warning_names_them(
    bart_decoder: Path, world: World, loraloom: Door, tmp_path: Path
) -> None:
    words = ["--model", bart_decoder, "--data", world.text, "--output-dir", tmp_path / "runs", "--json"]
    planned = loraloom("plan", *words)
    assert planned.code == 0, planned.err
    said = (
        "8 linear layers (k_proj, v_proj, q_proj, out_proj) take no adapter: the model never runs them"
        " for this task"
    )
    assert said in planned.json()["warnings"]
    trained = loraloom("train", *words, "--set", "training.max_steps=2")
    assert trained.code == 0, trained.err


def test_who_names_them_is_refused_before_anything_is_trained(
    bart_decoder: Path, world: World, loraloom: Door, tmp_path: Path
) -> None:
    words = ["--model", bart_decoder, "--data", world.text, "--output-dir", tmp_path / "runs"]
    answer = loraloom("train", *words, "--set", "adapter.target_modules=[encoder_attn.q_proj]")
    assert answer.code == 2
    assert "`encoder_attn.q_proj` reaches 2 layers" in answer.err and "never runs them" in answer.err
