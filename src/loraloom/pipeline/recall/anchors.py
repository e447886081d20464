"""What the bare base writes, of several kinds: the texts that a memory must not change.

They are sampled once for each memory, from prompts of ours. Most are trained against the frozen
base (their divergence from it is a part of every loss); some only measure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from numpy.typing import NDArray

from loraloom.data.rows import IGNORED, Row, causal_row
from loraloom.data.tokens import frame_of
from loraloom.evals.writing import continuations, of_one_length
from loraloom.recall.forms import Form
from loraloom.recall.journal import as_it_was
from loraloom.store.disk import write_whole
from loraloom.store.to_json import to_json

if TYPE_CHECKING:
    from loraloom.pipeline.recall.bench import MemoryBench

ANCHORS = "anchors.json"
LENGTH, SHORT = 40, 4
"""Tokens that the base writes for a prompt, and for a fact."""
SHARE_MEASURED = 8
"""Every so-manieth sampled text is only measured on."""
TIMES = 4
"""Texts that are sampled after each beginning. Of fifty that come again and again the words are kept,
and little else."""
SURE = 0.7
"""Nats a token, about one bit: what the base says less surely than this is a guess of its, and no
knowledge."""
SEED = 17
TALKS = (
    "Tell me a short story about a cat.",
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
    "What is two plus two?",
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
COUNTRIES = re.findall(
    r"\w+",
    "France Japan Brazil Egypt Canada Italy Kenya Norway Poland India Mexico Spain Turkey China Greece"
    " Peru Sweden Iran Cuba Ireland",
)
PEOPLE = (
    "Shakespeare",
    "Mozart",
    "Napoleon",
    "Albert Einstein",
    "Marie Curie",
    "Picasso",
    "Gandhi",
    "Isaac Newton",
)
FACTS = (
    *(f"The capital of {name} is" for name in COUNTRIES),
    *(f"The official language of {name} is" for name in COUNTRIES[::2]),
    *(f"{name} was born in" for name in PEOPLE),
    *(f"{name} is famous for" for name in PEOPLE),
)
"""Beginnings of facts about the world."""
ASKED_FACTS = (
    *(f"What is the capital of {name}?" for name in COUNTRIES),
    *(f"Where was {name} born?" for name in PEOPLE),
)
"""The same as questions."""
ASKED = (
    *ASKED_FACTS[::2],
    *(f"What is the {what} of {name}?" for name in COUNTRIES[::2] for what in ("flag", "language")),
    *(f"What is {name}'s largest city?" for name in COUNTRIES[::2]),
    *(f"Who was {name}?" for name in PEOPLE[::2]),
    *(f"What was {name}'s job?" for name in PEOPLE[::2]),
    "What colour is the sky?",
    "How many legs does a dog have?",
    "What is the opposite of hot?",
    "Who wrote Hamlet?",
    "Which animal says meow?",
    "What is the largest planet?",
    "Where do fish live?",
    "When is Christmas?",
    "Who was the first president of the United States?",
    "How many days does a week have?",
)
"""Short questions about the world, whose answer's first words are kept: the names in them are not of the
memory, and they are not unknown."""


@dataclass(frozen=True)
class Anchors:
    """Rows of what the base writes.

    Attributes:
        asked: answers to questions about the world, and nothing else of them.
        trained, held_out: all tokens supervised, their loss the divergence from the base.
        texts: `held_out` once more, with the usual loss: their perplexity.
        known: the base's own answers to questions about the world.
    """

    trained: list[Row]
    asked: list[Row]
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
        with as_it_was(path):
            write_whole(path, to_json({"texts": written}) + b"\n")
    sampled = [_row(bench, one) for one in written if one["kind"] in ("talk", "text")]
    asked = [_answer(bench, one) for one in written if one["kind"] == "asked talk"]
    held = sampled[::SHARE_MEASURED]
    return Anchors(
        trained=[_anchor(row) for number, row in enumerate(sampled) if number % SHARE_MEASURED],
        asked=[_anchor(row) for row in asked],
        held_out=[_anchor(row) for row in held],
        texts=held,
        known=_still_known(bench, [one for one in written if one["kind"].startswith("known")]),
    )


def _still_known(bench: MemoryBench, written: Sequence[dict[str, str]]) -> list[Row]:
    """Rows of the base's likeliest answers, those that it is sure of and gives token by token."""
    rows = [_answer(bench, one) for one in written]
    sums = bench.sums(rows, [])[""]
    sure = (sums.correct == sums.weight) & (sums.loss < SURE * sums.weight)
    return [row for row, fine in zip(rows, sure, strict=True) if fine]


def _anchor(row: Row) -> Row:
    return Row(row.input_ids, row.labels, loss="kl")


def _row(bench: MemoryBench, written: dict[str, str]) -> Row:
    """A row of prompt and text with all tokens supervised."""
    ids = _ids(bench, written)
    labels = ids.copy()
    labels[:1] = IGNORED
    return Row(ids, labels)


def _answer(bench: MemoryBench, written: dict[str, str]) -> Row:
    """The same with only what the base wrote supervised, without its end: it may have been cut."""
    ids, prompt = _ids(bench, written), written["prompt"]
    talk = written["kind"].endswith("talk")
    start = len(bench.prompt(prompt) if talk else _plain(bench, prompt))
    if talk:
        tokenizer = bench.base.tokenizer
        said: list[int] = tokenizer([written["text"]], add_special_tokens=False)["input_ids"][0]
        ids = ids[: start + len(said)]
    return causal_row(ids.tolist(), np.arange(len(ids)) >= start)


def _ids(bench: MemoryBench, written: dict[str, str]) -> NDArray[np.int32]:
    if written["kind"].endswith("talk"):
        ids = bench.encoded([Form("", written["prompt"], written["text"])])[0].input_ids
    else:
        ids = np.array(_plain(bench, f"{written['prompt']} {written['text']}"), dtype=np.int32)
    return ids[: bench.positions]


def _plain(bench: MemoryBench, text: str) -> list[int]:
    tokenizer = bench.base.tokenizer
    ids: list[int] = tokenizer([text], add_special_tokens=False)["input_ids"][0]
    return [*frame_of(tokenizer).opening, *ids]


def _written(bench: MemoryBench) -> list[dict[str, str]]:
    """What the base writes: sampled for talks, beginnings and half of the facts; its likeliest words
    for the other half."""
    sampled = [
        *_asked(bench, "talk", TALKS * TIMES),
        *_asked(bench, "text", (*TEXTS * 2, *FACTS[::2]) * TIMES),
    ]
    known = [*_asked(bench, "known talk", ASKED_FACTS[1::2]), *_asked(bench, "known text", FACTS[1::2])]
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        return [
            *_sampled(bench, sampled, LENGTH, 1.0),
            *_sampled(bench, _asked(bench, "asked talk", ASKED), SHORT, 1.0),
            *_sampled(bench, known, SHORT, 0.0),
        ]


def _asked(bench: MemoryBench, kind: str, prompts: Sequence[str]) -> list[tuple[str, str, list[int]]]:
    ids = bench.prompt if kind.endswith("talk") else lambda text: _plain(bench, text)
    asked = [(kind, prompt, ids(prompt)) for prompt in prompts]
    room = bench.positions
    return [one for one in asked if room is None or len(one[2]) + LENGTH < room]


def _sampled(
    bench: MemoryBench,
    asked: Sequence[tuple[str, str, list[int]]],
    length: int,
    temperature: float,
) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    for places in of_one_length([prompt for _, _, prompt in asked]):
        group = [asked[place] for place in places]
        with torch.no_grad(), bench.packed.base_only() as model:
            texts = continuations(
                model,
                [prompt for _, _, prompt in group],
                bench.base.tokenizer,
                task="causal_lm",
                pad_id=bench.base.pad_id,
                max_new_tokens=length,
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
