"""Small tokenizers of the kinds that matter, trained on the spot: no download."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from manners import Family

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

CORPUS = [
    "The quick brown fox jumps over the lazy dog.",
    "Question: how many foxes are there? Answer: there are 12 foxes.",
    "user assistant system hello world yes no one two three\n\nfour five",
    "é ü 😀 — bytes of several kinds",
]


@pytest.fixture(scope="session")
def byte_tokenizer() -> Any:
    """Byte-level BPE with a ChatML template; no BOS, its EOS ends a turn."""
    return _byte_level(trim_offsets=False)


@pytest.fixture(scope="session")
def trimming_tokenizer() -> Any:
    """The same with white space trimmed off its offsets, as GPT-2 has it."""
    return _byte_level(trim_offsets=True)


@pytest.fixture(scope="session")
def bos_tokenizer() -> Any:
    """Words with a BOS in front; an EOS that is there but never added; no template."""
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    words = _words(["<unk>", "<s>", "</s>"])
    words.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.fixture(scope="session")
def bert_tokenizer() -> Any:
    """Words between [CLS] and [SEP]; no BOS, no EOS."""
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    words = _words(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    words.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
    )


def _byte_level(*, trim_offsets: bool) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.post_processor = processors.ByteLevel(trim_offsets=trim_offsets)
    specials = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=340, special_tokens=specials, initial_alphabet=alphabet)
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|pad|>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    tokenizer.chat_template = CHATML
    return tokenizer


def _words(specials: list[str]) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {word: i for i, word in enumerate(specials)}
    words = sorted({word for text in CORPUS for word in text.split()} | set("abcdefghij"))
    vocabulary |= {word: len(vocabulary) + i for i, word in enumerate(words)}
    tokenizer = Tokenizer(
        models.WordLevel(vocabulary, unk_token=next(s for s in specials if "unk" in s.lower()))
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


@pytest.fixture(scope="session")
def tokenizer_of() -> Callable[[Family], Any]:
    """A byte-level tokenizer that knows the marks of a family, with its template."""
    base = _byte_level(trim_offsets=False)

    @cache
    def made(family: Family) -> Any:
        tokenizer = copy.deepcopy(base)
        tokenizer.add_special_tokens(
            {"bos_token": "<s>", "eos_token": "</s>", "additional_special_tokens": list(family.tokens)}
        )
        tokenizer.chat_template = family.template
        return tokenizer

    return made
