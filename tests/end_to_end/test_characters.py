"""A model that reads characters and has no vocabulary (CANINE) is trained as any other encoder."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers as tf
from doorway import Door, World


def test_a_model_without_a_vocabulary_is_checked_and_trained(
    world: World, loraloom: Door, tmp_path: Path
) -> None:
    folder = tmp_path / "canine"
    torch.manual_seed(0)
    config = tf.CanineConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=256,
        local_transformer_stride=16,
    )
    tf.CanineModel(config).save_pretrained(folder)
    tf.CanineTokenizer(model_max_length=256).save_pretrained(folder)
    words = ["--model", folder, "--data", world.labels, "--output-dir", tmp_path / "runs"]
    checked = loraloom("check", *words, "--json")
    assert checked.code == 0, checked.out + checked.err
    trained = loraloom("train", *words, "--set", "training.max_steps=2")
    assert trained.code == 0, trained.err
