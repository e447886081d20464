"""A tiny random model of each family, with a real tokenizer, in which nothing is trivial.

Norms are not 1, biases not 0, theta is not 10,000, queries share keys, a head is no hidden / heads.
"""

from __future__ import annotations

import pydoc_data.topics
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers as tf
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from torch import Tensor

SIZES = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "max_position_embeddings": 256,
    "initializer_range": 0.12,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
THETA = {"rope_theta": 7000.0, "rope_type": "default"}
LINEAR = {**THETA, "rope_type": "linear", "factor": 2.0}
LLAMA_3 = {
    "rope_type": "llama3",
    "rope_theta": 5000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 7000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 7000.0,
    "original_max_position_embeddings": 48,
    "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7],
    "long_factor": [2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5],
}
SLIDING = {"sliding_window": 16, "hidden_activation": "gelu_pytorch_tanh"}
GEMMA_3_ROPE = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
    "full_attention": {"rope_type": "linear", "rope_theta": 70_000.0, "factor": 4.0},
}
GEMMA = {"head_dim": 32, "query_pre_attn_scalar": 32}
FAMILIES: dict[str, tuple[str, dict[str, Any], str]] = {
    "Llama": ("Llama", {"head_dim": 32, "attention_bias": True, "mlp_bias": True}, "spaces"),
    "Llama, tied": ("Llama", {"tie_word_embeddings": True}, "llama3"),
    "Llama 3.1": ("Llama", {"rope_parameters": LLAMA_3}, "llama3"),
    "Llama, linear": ("Llama", {"rope_parameters": LINEAR}, "gpt2"),
    "Mistral": ("Mistral", {"head_dim": 32, "sliding_window": None}, "spaces"),
    "Qwen2": ("Qwen2", {"tie_word_embeddings": True}, "qwen2"),
    "Qwen2, YaRN": ("Qwen2", {"rope_parameters": YARN}, "qwen2"),
    "Qwen3": ("Qwen3", {"head_dim": 32}, "qwen2"),
    "Gemma": ("Gemma", {"head_dim": 32, "hidden_act": "gelu_pytorch_tanh"}, "gemma"),
    "Gemma 2": ("Gemma2", {**GEMMA, **SLIDING}, "gemma"),
    "Gemma 3": (
        "Gemma3",
        {**GEMMA, **SLIDING, "num_hidden_layers": 7, "rope_parameters": GEMMA_3_ROPE},
        "gemma",
    ),
    "Phi-3": ("Phi3", {"sliding_window": None}, "phi3"),
    "Phi-3, long": ("Phi3", {"rope_parameters": LONGROPE, "sliding_window": None}, "phi3"),
}
"""Class of the config, what differs in it, tokenizer."""
SPARE_ROWS = 5
"""Rows of the embeddings that no token has."""


def save_family(kind: str, folder: Path) -> Path:
    """A model folder."""
    name, more, tokens = FAMILIES[kind]
    tokenizer = save_tokenizer(tokens, folder)
    made = tf.Gemma3TextConfig if name == "Gemma3" else getattr(tf, f"{name}Config")
    asked = {"rope_parameters": THETA, **SIZES, **more, "vocab_size": len(tokenizer) + SPARE_ROWS}
    torch.manual_seed(0)
    model = getattr(tf, f"{name}ForCausalLM")(made(**asked))
    around = 0.0 if name.startswith("Gemma") else 1.0
    for part, parameter in model.named_parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, around if "norm" in part else 0.0, 0.2)
    model.save_pretrained(folder)
    return folder


@torch.no_grad()
def logits(folder: Path, rows: Sequence[Tensor], adapter: Path | None = None) -> list[Tensor]:
    """What transformers computes in float32, with PEFT's adapter where one is given."""
    model: Any = tf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(adapter))
    return [model(row[None]).logits[0] for row in rows]


# -- tokenizers ----------------------------------------------------------------------------------------

_ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_CUTS = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SLASHED_CUTS = _CUTS.replace(r"[\r\n]*", r"[\r\n/]*", 1)
_CASES = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
)
_REGEXES = {
    "llama3": rf"{_ENDINGS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_CUTS}",
    "qwen2": rf"{_ENDINGS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_CUTS}",
    "tekken": rf"{_CASES[0]}|{_CASES[1]}|\p{{N}}|{_SLASHED_CUTS}",
    "gpt4o": rf"{_CASES[0]}{_ENDINGS}?|{_CASES[1]}{_ENDINGS}?|\p{{N}}{{1,3}}|{_SLASHED_CUTS}",
}
BYTE_LEVEL = ("gpt2", "smollm", *_REGEXES)
SENTENCE_PIECE = ("spaces", "gemma", "phi3")
MARKS = ["<unk>", "<s>", "</s>", "<|endoftext|>"]


def corpus() -> str:
    """Python's own manual: some hundred thousand letters that are there wherever tests are."""
    return "\n".join(pydoc_data.topics.topics.values())[:200_000]


def save_tokenizer(kind: str, folder: Path) -> Any:
    """A tokenizer of one kind, in transformers' form."""
    inner = Tokenizer.from_str(_trained(kind))
    tokenizer = tf.PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<unk>"
    )
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{% generation %}{{ m['content'] }}"
        "{% endgeneration %}<|end|>{% endfor %}"
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


@cache
def _trained(kind: str) -> str:
    inner = _byte_level(kind) if kind in BYTE_LEVEL else _sentence_piece(kind)
    drops = kind == "phi3"  # the spaces behind its special tokens
    roles = ("<|user|>", "<|assistant|>", "<|end|>")
    inner.add_special_tokens([AddedToken(role, rstrip=drops) for role in roles])
    further = ["<table>", "zq  qz", *(["</s>"] if drops else [])]
    inner.add_tokens([AddedToken(text, rstrip=drops, normalized=False) for text in further])
    if kind not in ("qwen2", "gpt2"):  # these put nothing before a text
        inner.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
        )
    return inner.to_str()


def _byte_level(kind: str) -> Tokenizer:
    inner = Tokenizer(models.BPE(ignore_merges=kind in ("llama3", "tekken")))
    inner.pre_tokenizer = _cuts(kind)
    if kind == "qwen2":
        inner.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=MARKS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(corpus().splitlines(keepends=True), trainer)
    return inner


def _cuts(kind: str) -> Any:
    if kind == "gpt2":
        return pre_tokenizers.ByteLevel(add_prefix_space=False)
    if kind == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        return pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    regex = Regex(_REGEXES[kind])
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(regex, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _sentence_piece(kind: str) -> Tokenizer:
    """Tokens and merges as they come out of a SentencePiece model: every pair that makes a token merges,
    the best token first."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=600, show_progress=False)
    trained.train_from_iterator(corpus().splitlines(), trainer)
    words = sorted(trained.get_vocab(), key=trained.token_to_id)
    every = [*MARKS, *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    vocab = {word: number for number, word in enumerate(every)}
    merges = [
        (word[:cut], word[cut:])
        for word in words
        for cut in range(1, len(word))
        if word[:cut] in vocab and word[cut:] in vocab
    ]
    model = models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    inner = Tokenizer(model)
    replaces = normalizers.Replace(" ", "▁")
    if kind == "gemma":
        inner.normalizer = replaces
        inner.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    elif kind == "metaspace":
        inner.pre_tokenizer = pre_tokenizers.Metaspace(split=False, prepend_scheme="first")
    else:
        inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replaces])
    inner.add_special_tokens(MARKS)
    return inner
