"""What the bare base writes, of several kinds: the texts that a memory must not change.

They are sampled once for each memory, from prompts of ours. Three of four are trained against the
frozen base (their divergence from it is a part of every loss); the fourth only measures.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from loraloom.data.rows import IGNORED, Row
from loraloom.data.tokens import frame_of
from loraloom.evals.writing import continuations
from loraloom.recall.forms import Form
from loraloom.store.disk import write_atomically
from loraloom.store.to_json import to_json

if TYPE_CHECKING:
    from loraloom.pipeline.recall.bench import MemoryBench

ANCHORS = "anchors.json"
LENGTH = 40
"""Tokens that the base writes for each prompt."""
HELD_OUT = 4
"""Every so-manieth anchor is only measured on."""
SEED = 17
TALKS = (
    "Tell me a short story about a cat.",
    "Tell me a story about a boy and his boat.",
    "Write a story about a little girl who finds a key.",
    "What happened in the garden?",
    "How do I make a cup of tea?",
    "Give me three tips for a good night's sleep.",
    "Why is the sky blue?",
    "Describe a forest in autumn.",
    "Write a poem about the sea.",
    "Explain what a loan is.",
    "Tom has 3 apples and buys 5 more. How many apples does he have?",
    "A train goes 60 miles in one hour. How far does it go in four hours?",
    "Translate good morning into French.",
    "Is this review good or bad? The film was dull and far too long.",
    "Summarise: the meeting was moved to Tuesday, as the room was taken.",
    "Who are you?",
)
KNOWN = (
    "What is the capital of France?",
    "What is the capital of Japan?",
    "What language is spoken in Brazil?",
    "Which country is Berlin in?",
    "Who wrote Hamlet?",
    "What is the largest planet?",
    "How many days are in a week?",
    "What colour is grass?",
    "What is two plus two?",
    "What do bees make?",
    "Which continent is Egypt in?",
    "What is the opposite of hot?",
)
TEXTS = (
    "Once upon a time",
    "The",
    "In the",
    "One day, a",
    "He was born in",
    "The city of",
    "It is",
    "She said",
    "There were",
    "After the war,",
    "The company",
    "A new",
)
"""Beginnings of texts that no template is put around."""


@dataclass(frozen=True)
class Anchors:
    """Rows of what the base writes.

    Attributes:
        trained, held_out: all tokens supervised, their loss the divergence from the base.
        texts: `held_out` once more, with the usual loss: their perplexity.
        known: the base's own answers to questions about the world.
    """

    trained: list[Row]
    held_out: list[Row]
    texts: list[Row]
    known: list[Row]


def anchors_of(bench: MemoryBench) -> Anchors:
    """The anchors of a memory: as they were written first, else written now."""
    path = bench.memory.folder / ANCHORS
    try:
        written = cast(list[dict[str, str]], json.loads(path.read_bytes())["texts"])
    except (OSError, ValueError, KeyError):
        bench.watch("writing anchors: what the bare base says, to be kept so")
        written = _written(bench)
        write_atomically(path, to_json({"texts": written}) + b"\n")
    rows = [_row(bench, one) for one in written if one["kind"] != "known"]
    held = [row for number, row in enumerate(rows) if number % HELD_OUT == 0]
    known = [Form("", one["prompt"], one["text"]) for one in written if one["kind"] == "known"]
    return Anchors(
        trained=[_anchor(row) for number, row in enumerate(rows) if number % HELD_OUT],
        held_out=[_anchor(row) for row in held],
        texts=held,
        known=bench.rows(known),
    )


def _anchor(row: Row) -> Row:
    return Row(row.input_ids, row.labels, loss="kl")


def _row(bench: MemoryBench, written: dict[str, str]) -> Row:
    """A row of prompt and text with all tokens supervised."""
    if written["kind"] == "talk":
        ids = bench.rows([Form("", written["prompt"], written["text"])])[0].input_ids
    else:
        text = f"{written['prompt']} {written['text']}"
        ids = np.array(_plain(bench, text), dtype=np.int32)
    labels = ids.copy()
    labels[:1] = IGNORED
    return Row(ids, labels)


def _plain(bench: MemoryBench, text: str) -> list[int]:
    tokenizer = bench.base.tokenizer
    ids: list[int] = tokenizer([text], add_special_tokens=False)["input_ids"][0]
    return [*frame_of(tokenizer).opening, *ids]


def _written(bench: MemoryBench) -> list[dict[str, str]]:
    """What the base writes: sampled twice for talks and beginnings, its likeliest answer to what it may
    know and one that is sampled."""
    talks = [("talk", one, bench.prompt(one)) for one in (*TALKS, *TALKS, *KNOWN)]
    texts = [("text", one, _plain(bench, one)) for one in (*TEXTS, *TEXTS)]
    known = [("known", one, bench.prompt(one)) for one in KNOWN]
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        return [*_sampled(bench, [*talks, *texts], 1.0), *_sampled(bench, known, 0.0)]


def _sampled(
    bench: MemoryBench, asked: Sequence[tuple[str, str, list[int]]], temperature: float
) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    by_length = sorted(asked, key=lambda one: len(one[2]))
    for _, same in groupby(by_length, key=lambda one: len(one[2])):
        group = list(same)
        with torch.no_grad(), bench.packed.base_only() as model:
            texts = continuations(
                model,
                [prompt for _, _, prompt in group],
                bench.base.tokenizer,
                task="causal_lm",
                pad_id=bench.base.pad_id,
                max_new_tokens=LENGTH,
                temperature=temperature,
            )
        found += [
            {"kind": kind, "prompt": prompt, "text": text}
            for (kind, prompt, _), text in zip(group, texts, strict=True)
            if text
        ]
    # Mixed, so that every kind is in what is trained and in what measures.
    order = np.random.default_rng(SEED).permutation(len(found))
    return [found[number] for number in order]
