"""Models that are described by arithmetic, held against the same models built without numbers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import transformers as tf
from families import GROUPED, SIZES

from loraloom.facts import activations, llama, model
from loraloom.facts.activations import kept_bytes_per_row
from loraloom.facts.model import ModelFacts, model_facts
from loraloom.lora.targets import resolve_targets
from loraloom.records import Task

CONFIGS: dict[str, Any] = {
    "llama": lambda: tf.LlamaConfig(**GROUPED),
    "llama, no groups": lambda: tf.LlamaConfig(**SIZES),
    "llama, one key head": lambda: tf.LlamaConfig(**{**GROUPED, "num_key_value_heads": 1}),
    "llama, one head": lambda: tf.LlamaConfig(**{**SIZES, "num_attention_heads": 1}),
    "llama, tied": lambda: tf.LlamaConfig(**GROUPED, tie_word_embeddings=True),
    "llama, biases": lambda: tf.LlamaConfig(**GROUPED, attention_bias=True, mlp_bias=True),
    "llama, wide heads": lambda: tf.LlamaConfig(**GROUPED, head_dim=24),
    "llama, deep": lambda: tf.LlamaConfig(**{**GROUPED, "num_hidden_layers": 14}),
    "llama, long": lambda: tf.LlamaConfig(
        **GROUPED,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    ),
    "llama, a classifier": lambda: tf.LlamaConfig(
        **GROUPED, architectures=["LlamaForSequenceClassification"], num_labels=5
    ),
    "mistral": lambda: tf.MistralConfig(**GROUPED, sliding_window=None),
    "qwen2": lambda: tf.Qwen2Config(**GROUPED),
    "qwen2, tied": lambda: tf.Qwen2Config(**GROUPED, tie_word_embeddings=True),
    "qwen3": lambda: tf.Qwen3Config(**GROUPED, head_dim=8),
    "qwen3, wide heads": lambda: tf.Qwen3Config(**GROUPED, head_dim=20),
    "qwen3, biases": lambda: tf.Qwen3Config(**GROUPED, head_dim=16, attention_bias=True),
}
OTHERS: dict[str, Any] = {
    "another family": lambda: tf.GemmaConfig(**GROUPED, head_dim=8),
    "another activation": lambda: tf.LlamaConfig(**GROUPED, hidden_act="gelu"),
    "a window": lambda: tf.MistralConfig(**GROUPED, sliding_window=16),
    "windows in some layers": lambda: tf.Qwen2Config(
        **GROUPED, use_sliding_window=True, sliding_window=16, max_window_layers=1
    ),
    "positions scaled otherwise": lambda: tf.LlamaConfig(
        **GROUPED, rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    ),
    "already quantised": lambda: tf.LlamaConfig(
        **GROUPED, quantization_config={"quant_method": "gptq", "bits": 4}
    ),
}
CHOICES = (
    "all-linear",
    "attention",
    "mlp",
    "query",
    r".*layers\.1\.mlp\.down_proj",
    r".*layers\.1\..*(k|v|up)_proj",
)

KERNELS = (
    ("float32", 24, "rows"),
    ("float32", 200, "rows"),
    ("bfloat16", 24, "rows"),
    ("float16", 24, "sdpa"),
)
"""A table of scores, blocks of queries, both precisions, and the fused kernel."""


def both(
    folder: Path, config: Any, task: Task | None = None, num_labels: int | None = None
) -> tuple[ModelFacts, ModelFacts]:
    """The facts by arithmetic, and from the built model."""
    config.save_pretrained(folder)
    added = model_facts(str(folder), task=task, num_labels=num_labels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "read_llama_like", lambda folder: None)
        return added, model_facts(str(folder), task=task, num_labels=num_labels)


@pytest.mark.parametrize("task", [None, "causal_lm", "seq_cls"])
@pytest.mark.parametrize("name", CONFIGS)
def test_the_facts_are_those_of_the_built_model(tmp_path: Path, name: str, task: Task | None) -> None:
    added, built = both(tmp_path, CONFIGS[name](), task, 3 if task == "seq_cls" else None)
    assert added.llama is not None and built.llama is None
    assert added == built
    assert added.config.to_dict() == built.config.to_dict()


@pytest.mark.parametrize("name", CONFIGS)
def test_a_pass_keeps_to_the_byte_what_is_counted_on_the_built_model(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # each layer is counted, none is said to be like the others
    monkeypatch.setattr(activations, "DEEP", 1_000)
    task: Task = "seq_cls" if "tied" in name or "long" in name else "causal_lm"
    added, built = both(tmp_path, CONFIGS[name](), task)
    for chosen in CHOICES:
        targets = frozenset(resolve_targets(built.linears, chosen))
        for dtype, length, attention in KERNELS:
            given = (targets, 4, dtype, length, attention)
            assert kept_of(added, given) == kept_of(built, given), (chosen, dtype, length, attention)


def kept_of(facts: ModelFacts, given: Any) -> float | None:
    kept_bytes_per_row.cache_clear()
    return kept_bytes_per_row(facts, *given)


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_not_plain_is_left_to_the_built_model(tmp_path: Path, name: str) -> None:
    OTHERS[name]().save_pretrained(tmp_path)
    assert llama.read_llama_like(str(tmp_path)) is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_size", "32"),
        ("hidden_size", 33),
        ("hidden_size", 0),
        ("hidden_size", True),
        ("hidden_size", 2**40),
        ("num_hidden_layers", 100_000),
        ("num_key_value_heads", 3),
        ("head_dim", 7),
        ("pad_token_id", 100),
        ("pad_token_id", -1),
        ("rms_norm_eps", "small"),
        ("architectures", "LlamaForCausalLM"),
        ("dtype", "int4"),
        ("torch_dtype", "bfloat16"),
        ("rope_parameters", {"rope_type": "linear", "rope_theta": 10000.0}),
        ("auto_map", {"AutoModel": "made.Model"}),
        ("id2label", {"0": "no", "2": "yes"}),
        ("something", 1),
        ("model_type", ["llama"]),
        ("vocab_size", None),
    ],
)
def test_a_strange_value_is_left_to_the_built_model(tmp_path: Path, key: str, value: Any) -> None:
    tf.LlamaConfig(**GROUPED, dtype="float32").save_pretrained(tmp_path)
    assert llama.read_llama_like(str(tmp_path)) is not None
    path = tmp_path / "config.json"
    path.write_text(
        json.dumps(json.loads(path.read_text(encoding="utf-8")) | {key: value}), encoding="utf-8"
    )
    assert llama.read_llama_like(str(tmp_path)) is None


@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 100_000, '{"model_type": "llama"}'])
def test_a_file_that_is_no_config_is_left_to_the_loader_that_says_so(
    tmp_path: Path, content: str
) -> None:
    (tmp_path / "config.json").write_text(content, encoding="utf-8")
    assert llama.read_llama_like(str(tmp_path)) is None


def test_a_pipe_is_left_to_the_loader_that_says_so(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    assert llama.read_llama_like(str(tmp_path)) is None


@pytest.mark.parametrize("folder", ["nowhere", "~no-such-user/model", "n" * 5_000, "a\0b"])
def test_no_folder_is_left_to_the_loader_that_says_so(folder: str) -> None:
    assert llama.read_llama_like(folder) is None
