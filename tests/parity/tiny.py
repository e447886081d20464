"""Tiny random models of every family, built in the test: nothing is downloaded."""

from __future__ import annotations

from typing import Any

import torch
import transformers as tf

VOCAB = 61
SMALL = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 40, "vocab_size": VOCAB}
LLAMA_LIKE = {**SMALL, "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0}
ENCODER = {**SMALL, "max_position_embeddings": 64, "pad_token_id": 0, "num_labels": 3}


def causal_lm(family: str = "llama", dtype: torch.dtype = torch.float64) -> Any:
    """A causal language model of a family, in eval mode."""
    torch.manual_seed(0)
    config = {
        "llama": lambda: tf.LlamaConfig(**LLAMA_LIKE),
        "gpt2": lambda: tf.GPT2Config(n_embd=24, n_layer=2, n_head=4, vocab_size=VOCAB, n_positions=64, pad_token_id=0),
    }[family]()
    return tf.AutoModelForCausalLM.from_config(config).to(dtype).eval()


def classifier(family: str = "bert", dtype: torch.dtype = torch.float64) -> Any:
    """A sequence classifier of a family with three labels, in eval mode."""
    torch.manual_seed(0)
    config = {
        "bert": lambda: tf.BertConfig(**ENCODER),
        "llama": lambda: tf.LlamaConfig(**LLAMA_LIKE, num_labels=3),
    }[family]()
    return tf.AutoModelForSequenceClassification.from_config(config).to(dtype).eval()
