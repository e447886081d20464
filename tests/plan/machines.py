"""Machines, models and data to plan for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import transformers as tf

from loraloom.facts.data import DataFacts
from loraloom.facts.device import DeviceFacts
from loraloom.records import Task

GIB = 2**30
CPU = DeviceFacts("cpu", "a processor", 16 * GIB, 12 * GIB, 4, bf16_native=False)
GPU = DeviceFacts(
    "cuda", "a large GPU", 80 * GIB, 79 * GIB, 16, bf16_native=True, compute_capability=(9, 0)
)
OLD_GPU = DeviceFacts(
    "cuda", "an old GPU", 16 * GIB, 15 * GIB, 16, bf16_native=False, compute_capability=(7, 5)
)

CONFIGS: dict[str, Callable[[], Any]] = {
    "tiny": lambda: tf.LlamaConfig(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=172,
        num_hidden_layers=5,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=512,
    ),
    "1b": lambda: tf.LlamaConfig(
        vocab_size=128256,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=64,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    ),
    "3b": lambda: tf.LlamaConfig(
        vocab_size=128256,
        hidden_size=3072,
        intermediate_size=8192,
        num_hidden_layers=28,
        num_attention_heads=24,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    ),
    "8b": lambda: tf.LlamaConfig(
        vocab_size=128256,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=8192,
    ),
    "minilm": lambda: tf.BertConfig(
        hidden_size=384, intermediate_size=1536, num_hidden_layers=6, num_attention_heads=12
    ),
    "bert-base": lambda: tf.BertConfig(),
    "bert-large": lambda: tf.BertConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16
    ),
    "t5": lambda: tf.T5Config(vocab_size=1000, d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4),
    "mixtral": lambda: tf.MixtralConfig(
        vocab_size=1000,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
    ),
}


def data(task: Task = "causal_lm", rows: int = 5_000, length: int = 200, **more: Any) -> DataFacts:
    """Rows that are all of one length, half of it supervised."""
    facts = DataFacts(
        task=task,
        rows=rows,
        tokens=rows * length,
        supervised_tokens=rows if task == "seq_cls" else rows * length // 2,
        mean_length=float(length),
        longest=length,
        percentiles={50: length, 90: length, 95: length, 99: length},
        longest_anywhere=length,
        validation_rows=500,
        validation_tokens=500 * length,
    )
    return replace(facts, **more)
