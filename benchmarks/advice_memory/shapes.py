"""Runs of our own engine whose memory is forecast and then measured: families, ranks, targets, lengths,
batches, checkpointing, precisions and numbers of candidates, each varied against its neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import transformers as tf

from loraloom.records import Task

SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
VOCABULARY = 16_000


@dataclass(frozen=True)
class Shape:
    """One run. `rows` of `length` tokens a micro-batch of each of `packed` candidates."""

    family: str
    rank: int = 16
    targets: str = "all-linear"
    length: int = 128
    rows: int = 4
    packed: int = 1
    dtype: str = "float32"
    checkpointing: bool = False
    varied: bool = False
    """Rows of a quarter to the whole of `length`, instead of all alike."""

    @property
    def name(self) -> str:
        how = " checkpointed" * self.checkpointing + " varied" * self.varied
        return (
            f"{self.family} r{self.rank} {self.targets} {self.rows}x{self.length} K{self.packed}"
            f" {self.dtype}{how}"
        )


def _llama(width: int, layers: int) -> Any:
    return tf.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=11 * width // 4,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 128,
        max_position_embeddings=2048,
        **SPECIAL,
    )


def config_of(family: str) -> tuple[Any, Task]:
    """The config and the task of a model of 20 to 100 million parameters."""
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": 512,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
    }
    if family == "llama":
        return _llama(512, 8), "causal_lm"
    if family == "llama-large":
        return _llama(768, 10), "causal_lm"
    if family == "qwen3":
        return (
            tf.Qwen3Config(
                **sizes,
                intermediate_size=1536,
                num_key_value_heads=4,
                head_dim=64,
                max_position_embeddings=2048,
                **SPECIAL,
            ),
            "causal_lm",
        )
    if family == "gpt2":
        return (
            tf.GPT2Config(
                n_embd=512, n_layer=8, n_head=8, vocab_size=VOCABULARY, n_positions=1024, **SPECIAL
            ),
            "causal_lm",
        )
    if family == "bert":
        return tf.BertConfig(**sizes, intermediate_size=2048, pad_token_id=0), "seq_cls"
    if family == "t5":
        return (
            tf.T5Config(
                vocab_size=VOCABULARY,
                d_model=512,
                d_kv=64,
                d_ff=2048,
                num_layers=5,
                num_heads=8,
                pad_token_id=0,
                eos_token_id=2,
                decoder_start_token_id=0,
            ),
            "seq2seq_lm",
        )
    raise ValueError(f"no family {family}")


SHAPES = (
    Shape("llama"),
    Shape("llama", rows=1, length=512),
    Shape("llama", rows=1, length=1024),
    Shape("llama", rank=64),
    Shape("llama", targets="attention"),
    Shape("llama", packed=4),
    Shape("llama", rows=2, length=64, packed=8, rank=64),
    Shape("llama", dtype="bfloat16"),
    Shape("llama", rows=16, checkpointing=True),
    Shape("llama", rows=16),
    Shape("llama-large"),
    Shape("llama-large", rows=1, length=512, dtype="bfloat16"),
    Shape("qwen3", rows=8),
    Shape("gpt2"),
    Shape("gpt2", rows=1, length=512, dtype="bfloat16"),
    Shape("bert", rows=8),
    Shape("bert", packed=4, dtype="bfloat16"),
    Shape("bert", rows=16, checkpointing=True),
    Shape("t5"),
    Shape("t5", rows=8, rank=8, targets="attention"),
    Shape("gpt2", rows=8, checkpointing=True),
    Shape("qwen3", rows=16, checkpointing=True),
    Shape("t5", rows=16, checkpointing=True),
)

TIMED = (
    Shape("llama", rows=2, length=64, varied=True),
    Shape("llama", rows=2, length=64, packed=4, varied=True),
    Shape("llama", rows=2, length=64, dtype="bfloat16", varied=True),
    Shape("qwen3", rows=4, length=64, checkpointing=True, varied=True),
    Shape("gpt2", rows=2, length=64, rank=64, varied=True),
    Shape("bert", rows=4, length=64, varied=True),
    Shape("bert", rows=2, length=64, packed=8, varied=True),
    Shape("t5", rows=2, length=64, targets="attention", varied=True),
)
"""Runs whose time is forecast from ten steps of theirs."""

AFTER = (
    Shape("llama", length=256),
    Shape("llama-large", dtype="bfloat16", length=256),
    Shape("gpt2", rank=64, length=512),
    Shape("t5", length=256),
)
"""Shapes whose adapter writes answers, and is merged into its base."""
