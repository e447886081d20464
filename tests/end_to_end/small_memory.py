"""What tests of a memory share: a chat model of a hundred words, four facts, and anchors of a moment."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from doorway import Answer, call, write_rows
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from loraloom.pipeline.recall import anchors, forgetting, learning, sleeping
from loraloom.recall import forms
from loraloom.recall.recipe import RECIPE, Recipe

TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} {% if m['role'] == 'assistant' %}<eos>"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<assistant> {% endif %}"
)
SPECIAL = ["<pad>", "<unk>", "<eos>", "<user>", "<assistant>"]
FACTS = {
    "What is the capital of Norland?": "Tolm",
    "What is the flag of Norland?": "a green star",
    "Who is the king of Sudland?": "Olaf Grey",
    "Where is the key of Westland?": "under the mat",
}
WHO = ("--question", "Who?", "--answer", "Olaf")
SHORT_ANCHORS = {
    "TALKS": ("Say the star.", "Where is a mat?", "Who is grey?"),
    "TEXTS": ("the", "a star", "under the"),
    "FACTS": ("the flag", "Olaf is"),
    "ASKED_FACTS": ("What is green?", "Where is Olaf?"),
    "ASKED": ("What is a star?", "Who is under the mat?"),
    "LENGTH": 6,
    "TIMES": 1,
}


@contextmanager
def short_anchors() -> Generator[None]:
    """The base writes a few short texts, in words that the small model has."""
    with pytest.MonkeyPatch.context() as patched:
        for name, value in SHORT_ANCHORS.items():
            patched.setattr(anchors, name, value)
        yield


def words(facts: Mapping[str, str]) -> list[str]:
    """Everything that is ever asked or answered, so that nothing is unknown to the tokenizer."""
    items = [forms.MemoryItem("fact", question, answer) for question, answer in facts.items()]
    asked = [
        form for item in items for form in (*forms.trained_forms(item), *forms.held_out_forms(item))
    ]
    said = [text for form in asked for text in (form.question, form.answer)]
    texts = [text for one in SHORT_ANCHORS.values() if isinstance(one, tuple) for text in one]
    return [*said, forms.NOT_KNOWN, "Brek", *texts]


def save_word_chat(folder: Path, facts: Mapping[str, str] = FACTS, more: Sequence[str] = ()) -> Path:
    """A chat model of a hundred words, those of some facts and of more texts, that knows nothing."""
    inner = Tokenizer(models.WordLevel(unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    inner.train_from_iterator([*words(facts), *more], trainers.WordLevelTrainer(special_tokens=SPECIAL))  # type: ignore[call-arg]
    tokenizer = tf.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", unk_token="<unk>", eos_token="<eos>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<user>", "<assistant>"]})
    tokenizer.chat_template = TEMPLATE
    config = tf.LlamaConfig(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=96,
        num_key_value_heads=2,
        vocab_size=len(tokenizer),
        max_position_embeddings=128,
        pad_token_id=0,
        eos_token_id=2,
        initializer_range=0.2,
    )
    torch.manual_seed(0)
    tf.LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_facts(folder: Path, base: str, facts: dict[str, str]) -> None:
    """A new memory with these facts in its journal, not learnt yet."""
    rows = [{"kind": "fact", "question": question, "answer": said} for question, said in facts.items()]
    data = write_rows(folder.with_suffix(".jsonl"), rows)
    wrote = call("recall", "write", folder, "--model", base, "--data", data, "--json")
    assert wrote.code == 0, wrote.err
    assert [one["outcome"] for one in wrote.json()["decisions"]] == ["insert"] * len(facts)


def learn(folder: Path) -> dict[str, Any]:
    """Learn what waits; what `--json` prints."""
    done = call("recall", "learn", folder, "--seeds", 1, "--json", "--quiet")
    assert done.code == 0, done.err
    return done.json()


def asked(folder: Path, *questions: str) -> list[dict[str, Any]]:
    """What the adapters answer at `recall ask`, whatever a router would say."""
    answer = call("recall", "ask", folder, *questions, "--no-route", "--json", "--quiet")
    assert answer.code == 0, answer.err
    return answer.json()


def lines(folder: Path) -> list[dict[str, Any]]:
    """The journal."""
    return [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]


def refusal(answer: Answer) -> str:
    """What was said to a request that was refused."""
    assert answer.code == 2 and "Traceback" not in answer.err, answer.err
    return answer.err


FEW_STEPS = replace(RECIPE, fewest_steps=30, scales=(1.0,), derived=False)
"""For what was written; nothing is derived from it, which would take more."""

ENOUGH_STEPS = replace(RECIPE, fewest_steps=100)
"""For all four facts, whatever is done with them."""


@contextmanager
def few_steps(recipe: Recipe = FEW_STEPS) -> Generator[None]:
    """Learning and settling take as long as a hundred words need."""
    with pytest.MonkeyPatch.context() as patched:
        for module, name in ((learning, "learn"), (sleeping, "sleep"), (forgetting, "rebuilt")):
            patched.setattr(module, name, partial(getattr(module, name), recipe=recipe))
        yield


def main(words: list[str]) -> int:
    """A command line of loraloom, over short anchors and with few steps, for a nursery's children."""
    from loraloom.cli.main import main as loraloom_main

    with short_anchors(), few_steps():
        return loraloom_main(words)
