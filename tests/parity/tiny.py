"""Tiny random models of every family, built in the test: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers as tf

VOCAB = 61
PAD = 0
SMALL = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "vocab_size": VOCAB,
}
ENCODER = {**SMALL, "max_position_embeddings": 64, "pad_token_id": PAD}
LLAMA_LIKE = {**ENCODER, "num_key_value_heads": 2}
GEMMA_LIKE = {**LLAMA_LIKE, "head_dim": 6, "sliding_window": 5}


@dataclass(frozen=True)
class Family:
    """One family: how to configure it, its task, and the modules of its new head, if
    the task needs one."""

    task: str
    config: Callable[[], Any]
    heads: tuple[str, ...] = ()


def experts(config: Any) -> Any:
    """The same mixture, its experts one by one: the grouped kernels of torch have no float64."""
    config._experts_implementation = "eager"
    return config


FAMILIES = {
    "llama": Family("causal_lm", lambda: tf.LlamaConfig(**LLAMA_LIKE)),
    "qwen2": Family("causal_lm", lambda: tf.Qwen2Config(**LLAMA_LIKE)),
    "qwen3": Family(
        "causal_lm", lambda: tf.Qwen3Config(**LLAMA_LIKE, head_dim=6, tie_word_embeddings=True)
    ),
    "mistral": Family("causal_lm", lambda: tf.MistralConfig(**LLAMA_LIKE, sliding_window=5)),
    "gemma": Family("causal_lm", lambda: tf.GemmaConfig(**LLAMA_LIKE, head_dim=6)),
    "gemma2": Family(
        "causal_lm",
        lambda: tf.Gemma2Config(**GEMMA_LIKE, final_logit_softcapping=0.3, attn_logit_softcapping=2.0),
    ),
    "gemma3": Family("causal_lm", lambda: tf.Gemma3TextConfig(**GEMMA_LIKE)),
    "phi": Family("causal_lm", lambda: tf.PhiConfig(**{**LLAMA_LIKE, "hidden_size": 32})),
    "gpt2": Family(
        "causal_lm",
        lambda: tf.GPT2Config(
            n_embd=24, n_layer=2, n_head=4, vocab_size=VOCAB, n_positions=64, pad_token_id=PAD
        ),
    ),
    "gpt-neox": Family("causal_lm", lambda: tf.GPTNeoXConfig(**{**ENCODER, "hidden_size": 32})),
    "mixtral": Family("causal_lm", lambda: experts(tf.MixtralConfig(**LLAMA_LIKE, num_local_experts=4))),
    "qwen2-moe": Family(
        "causal_lm",
        lambda: experts(
            tf.Qwen2MoeConfig(
                **LLAMA_LIKE,
                num_experts=4,
                num_experts_per_tok=2,
                moe_intermediate_size=16,
                shared_expert_intermediate_size=16,
            )
        ),
    ),
    "deepseek-v3": Family(
        "causal_lm",
        lambda: experts(
            tf.DeepseekV3Config(
                **ENCODER,
                n_routed_experts=4,
                num_experts_per_tok=2,
                n_group=2,
                topk_group=1,
                first_k_dense_replace=1,
                moe_intermediate_size=16,
                q_lora_rank=8,
                kv_lora_rank=8,
                qk_rope_head_dim=4,
                qk_nope_head_dim=6,
                v_head_dim=6,
            )
        ),
    ),
    "granite-moe": Family(
        "causal_lm", lambda: experts(tf.GraniteMoeConfig(**LLAMA_LIKE, num_local_experts=4))
    ),
    "bert": Family("seq_cls", lambda: tf.BertConfig(**ENCODER), ("classifier",)),
    "roberta": Family("seq_cls", lambda: tf.RobertaConfig(**ENCODER), ("classifier",)),
    "distilbert": Family(
        "seq_cls",
        lambda: tf.DistilBertConfig(
            vocab_size=VOCAB,
            max_position_embeddings=64,
            n_layers=2,
            n_heads=4,
            dim=24,
            hidden_dim=40,
            pad_token_id=PAD,
        ),
        ("pre_classifier", "classifier"),
    ),
    "deberta": Family(
        "seq_cls",
        lambda: tf.DebertaV2Config(
            **ENCODER,
            relative_attention=True,
            position_buckets=8,
            pos_att_type=["p2c", "c2p"],
            norm_rel_ebd="layer_norm",
            share_att_key=True,
            position_biased_input=False,
            type_vocab_size=0,
        ),
        ("pooler", "classifier"),
    ),
    "modernbert": Family(
        "seq_cls",
        lambda: tf.ModernBertConfig(
            **ENCODER,
            local_attention=4,
            global_attn_every_n_layers=2,
            bos_token_id=1,
            eos_token_id=2,
            cls_token_id=1,
            sep_token_id=2,
        ),
        ("classifier",),
    ),
    "llama-classifier": Family("seq_cls", lambda: tf.LlamaConfig(**LLAMA_LIKE), ("score",)),
    "t5": Family(
        "seq2seq_lm",
        lambda: tf.T5Config(
            vocab_size=VOCAB,
            d_model=24,
            d_kv=6,
            d_ff=40,
            num_layers=2,
            num_heads=4,
            pad_token_id=PAD,
            decoder_start_token_id=PAD,
        ),
    ),
    "bart": Family(
        "seq2seq_lm",
        lambda: tf.BartConfig(
            vocab_size=VOCAB,
            max_position_embeddings=64,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=40,
            decoder_ffn_dim=40,
            d_model=24,
            pad_token_id=PAD,
        ),
    ),
}
DECODERS = tuple(name for name, family in FAMILIES.items() if family.task == "causal_lm")

MAKERS = {
    "causal_lm": tf.AutoModelForCausalLM,
    "seq_cls": tf.AutoModelForSequenceClassification,
    "seq2seq_lm": tf.AutoModelForSeq2SeqLM,
}


def model_of(family: str, dtype: torch.dtype = torch.float64) -> Any:
    """A model of a family for its task (three labels for a classifier), in eval mode,
    with biases that are not zero."""
    torch.manual_seed(0)
    chosen = FAMILIES[family]
    config = chosen.config()
    if chosen.task == "seq_cls":
        config.num_labels = 3
    model = MAKERS[chosen.task].from_config(config).to(dtype).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.1)
    return model
