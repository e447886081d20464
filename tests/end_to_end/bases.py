"""Tiny random models with real tokenizers, saved as a hub folder would be: what a
person points `--model` at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers as tf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

CHAT_TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{% if m['role'] == 'assistant' %}{% generation %}{{"
    " m['content'] }}<eos>{% endgeneration %}{% else %} {{ m['content'] }} {% endif %}{% endfor %}{% if"
    " add_generation_prompt %}<assistant>{% endif %}"
)
SPECIAL = ["<pad>", "<unk>", "<bos>", "<eos>", "<user>", "<assistant>"]
WIDTHS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
POSITIONS = 64
SPREAD = 0.2
"""Of the random weights: far wider than usual, or so small a base would have nothing in
it that an adapter could turn."""


def save_llama(folder: Path, sentences: list[str], *, chat: bool = False, **sizes: int) -> Path:
    """A decoder of about 30,000 parameters; with `chat`, its tokenizer has a template
    that marks the assistant's turns.

    Args:
        sizes: others than `WIDTHS` has.
    """
    tokenizer = _byte_pairs(sentences, framed="<bos> $A")
    if chat:
        tokenizer.chat_template = CHAT_TEMPLATE
    config = tf.LlamaConfig(
        **(WIDTHS | sizes),
        num_key_value_heads=2,
        vocab_size=len(tokenizer),
        max_position_embeddings=POSITIONS,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
        initializer_range=SPREAD,
    )
    return _save(folder, tf.LlamaForCausalLM, config, tokenizer)


def save_bert(folder: Path, sentences: list[str]) -> Path:
    """An encoder without a head: the task's head is made, and trained, by the run."""
    inner = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    trainer = trainers.WordLevelTrainer(special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]"])  # type: ignore[call-arg]
    inner.train_from_iterator(sentences, trainer)
    inner.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))  # type: ignore[assignment]
    tokenizer = tf.PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=POSITIONS,
    )
    config = tf.BertConfig(
        **WIDTHS,
        vocab_size=len(tokenizer),
        max_position_embeddings=POSITIONS,
        pad_token_id=0,
        initializer_range=SPREAD,
    )
    return _save(folder, tf.BertModel, config, tokenizer)


def save_t5(folder: Path, sentences: list[str]) -> Path:
    """An encoder and a decoder."""
    tokenizer = _byte_pairs(sentences, framed="$A <eos>")
    config = tf.T5Config(
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        vocab_size=len(tokenizer),
        pad_token_id=0,
        eos_token_id=3,
        decoder_start_token_id=0,
    )
    return _save(folder, tf.T5ForConditionalGeneration, config, tokenizer)


def _byte_pairs(sentences: list[str], framed: str) -> Any:
    inner = Tokenizer(models.BPE(unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()  # type: ignore[assignment]
    inner.decoder = decoders.Metaspace()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(vocab_size=120, special_tokens=SPECIAL, show_progress=False)  # type: ignore[call-arg]
    inner.train_from_iterator(sentences, trainer)
    ends = [("<bos>", SPECIAL.index("<bos>")), ("<eos>", SPECIAL.index("<eos>"))]
    inner.post_processor = processors.TemplateProcessing(single=framed, special_tokens=ends)  # type: ignore[assignment]
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<bos>",
        eos_token="<eos>",
        model_max_length=POSITIONS,
    )


def _save(folder: Path, kind: Any, config: Any, tokenizer: Any) -> Path:
    torch.manual_seed(0)
    kind(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
