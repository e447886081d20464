"""Small bases and data to plant faults in: every part can be made wrong on its own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers as tf
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from loraloom.config.asked import Config
from loraloom.config.decode import load_config

SPECIAL = ("<pad>", "<unk>", "<bos>", "<eos>", "<user>", "<assistant>")
WORDS = (*(f"w{number}" for number in range(40)), "what", "is", "it")
POSITIONS = 128

GOOD_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }}"
    "{% if m['role'] == 'assistant' %} {{ eos_token }}{% endif %} {% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)


def save_base(
    folder: Path, *, template: str | None = GOOD_TEMPLATE, eos: bool = True, extra: int = 0, **sizes: Any
) -> str:
    """A one-block decoder whose tokenizer knows whole words.

    Args:
        eos: whether the tokenizer has an end of text.
        extra: tokens that the tokenizer has and the embedding does not.
    """
    known = (*SPECIAL, *WORDS)
    inner = Tokenizer(
        models.WordLevel({word: number for number, word in enumerate(known)}, unk_token="<unk>")
    )
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    inner.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 2)]
    )  # type: ignore[assignment]
    ends = {"eos_token": "<eos>"} if eos else {}
    tokenizer = tf.PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<bos>",
        model_max_length=POSITIONS,
        **ends,
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<user>", "<assistant>"]})
    tokenizer.chat_template = template
    rows = len(tokenizer)
    tokenizer.add_tokens([f"new{number}" for number in range(extra)])
    tokenizer.save_pretrained(folder)
    config = tf.LlamaConfig(
        **{
            "vocab_size": rows,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": POSITIONS,
            "pad_token_id": 0,
            "bos_token_id": 2,
            "eos_token_id": 3,
            **sizes,
        },
    )
    torch.manual_seed(0)
    tf.LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


def talk(number: int, answer: str | None = None, prompt: str = "what is it") -> dict[str, Any]:
    """A question and its answer."""
    said = f"w{number % 40} w{number * 7 % 40}" if answer is None else answer
    asked = f"{prompt} w{number // 40} w{number % 40}"
    return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]}


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def config_of(model: str, train: str, *sets: str, **flags: Any) -> Config:
    """The request of a command line with these flags (dotted keys, `__` for the dot) and `--set`s."""
    given = {
        "model.name_or_path": model,
        "data.train": train,
        **{name.replace("__", "."): value for name, value in flags.items()},
    }
    return load_config(None, given, ["training.max_steps=4", *sets])
