"""Layers in which an adapter would learn nothing: left out of what a keyword stands for
and said, refused where named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from families import SIZES
from torch import Tensor, nn

from loraloom.errors import ModelError
from loraloom.facts.linear import left_out
from loraloom.facts.model import ModelFacts, model_facts
from loraloom.facts.unused import NEVER_RUN, NO_GRADIENT, NO_PRODUCT, unused_linears
from loraloom.lora.targets import module_names, resolve_targets
from loraloom.records import Task

SEEING = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "vocab_size": 64,
    "max_position_embeddings": 64,
}
DECODER = {"is_decoder": True, "is_encoder_decoder": False}
LATENT = {
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}
CASES: dict[str, tuple[Any, Task, dict[str, str]]] = {
    "bart": (
        tf.BartConfig(**SEEING, **DECODER, architectures=["BartForCausalLM"]),
        "causal_lm",
        {
            "encoder_attn.k_proj": NEVER_RUN,
            "encoder_attn.out_proj": NEVER_RUN,
        },
    ),
    "led": (
        tf.LEDConfig(
            **{k: v for k, v in SEEING.items() if k != "max_position_embeddings"},
            attention_window=4,
            max_encoder_position_embeddings=64,
            max_decoder_position_embeddings=64,
        ),
        "seq2seq_lm",
        {"query_global": NEVER_RUN, "value_global": NEVER_RUN},
    ),
    "mamba": (
        tf.MambaConfig(hidden_size=32, num_hidden_layers=1, vocab_size=64),
        "causal_lm",
        {"dt_proj": NEVER_RUN},
    ),
    "big_bird": (tf.BigBirdConfig(**SIZES), "seq_cls", {"pooler": NO_GRADIENT}),
    "deepseek_v32": (
        tf.DeepseekV32Config(
            **SIZES,
            **LATENT,
            n_routed_experts=4,
            n_group=2,
            topk_group=1,
            moe_intermediate_size=16,
            index_n_heads=2,
            index_head_dim=16,
            index_topk=4,
            num_key_value_heads=4,
        ),
        "causal_lm",
        {"indexer.wk": NO_GRADIENT, "indexer.weights_proj": NO_GRADIENT},
    ),
    "deepseek_v4": (tf.DeepseekV4Config(**SIZES), "causal_lm", {"self_attn.o_a_proj": NO_PRODUCT}),
}


def facts_of(name: str, folder: Path) -> ModelFacts:
    config, task, _ = CASES[name]
    config.save_pretrained(folder)
    return model_facts(str(folder), task=task)


@pytest.mark.parametrize("name", CASES)
def test_keywords_leave_them_out_and_a_sentence_names_them(name: str, tmp_path: Path) -> None:
    facts, expected = facts_of(name, tmp_path), CASES[name][2]
    chosen = resolve_targets(facts.linears, "all-linear")
    assert chosen and resolve_targets(facts.linears, "auto") == chosen
    said = left_out(facts.linears, facts.experts)
    for end, why in expected.items():
        paths = [linear.path for linear in facts.linears if linear.path.endswith(end)]
        assert paths and not set(paths) & set(chosen)
        assert any(end.rpartition(".")[2] in sentence and sentence.endswith(why) for sentence in said)


@pytest.mark.parametrize("name", CASES)
def test_naming_one_is_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    facts = facts_of(name, tmp_path)
    for end, why in CASES[name][2].items():
        with pytest.raises(ModelError, match=r"reaches \d layers? that stay") as error:
            resolve_targets(facts.linears, (end,))
        assert error.value.got == why


@pytest.mark.parametrize(
    ("config", "task"),
    [
        (tf.GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=64), "causal_lm"),
        (tf.BertConfig(**SIZES), "seq_cls"),
        (tf.FalconConfig(**SIZES), "causal_lm"),
        (tf.T5Config(d_model=32, num_layers=1, vocab_size=64), "seq2seq_lm"),
    ],
)
def test_what_runs_and_learns_is_not_left_out(config: Any, task: Task, tmp_path: Path) -> None:
    """Falcon has a linear layer of its own, whose product is the usual one."""
    config.save_pretrained(tmp_path)
    facts = model_facts(str(tmp_path), task=task)
    assert left_out(facts.linears, facts.experts) == ()
    assert module_names(facts.linears)


def test_a_pass_that_needs_numbers_says_nothing() -> None:
    class Numbers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 4)

        def forward(self, input_ids: Tensor) -> Tensor:
            return input_ids.float()[input_ids.nonzero()]

    with torch.device("meta"):
        assert unused_linears(Numbers(), {"inner": (4, 4)}, "causal_lm", None) == {}
