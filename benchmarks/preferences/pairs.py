"""Real pairs of answers, made by rule from data whose right answers are known."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Pair = dict[str, str]

ASKED = "What does this ask for: {text}"
WORDS = re.compile(r"(?<=[a-z])(?=[A-Z])")
SENTENCE = re.compile(r"(?<=[.!?])\s+")
MARKED = re.compile(r"<<[^>]*>>")


def rows_of(file: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def intents(shared: Path, split: str, count: int, seed: int) -> list[Pair]:
    """What somebody asks a device for, in words (snips): the right intent against another one."""
    rows = rows_of(shared / "data" / "snips" / f"{split}.jsonl")
    labels = sorted({row["label_text"] for row in rows})
    draw = random.Random(seed)
    draw.shuffle(rows)
    return [
        pair(
            ASKED.format(text=row["text"].strip()),
            spoken(row["label_text"]),
            spoken(draw.choice([label for label in labels if label != row["label_text"]])),
        )
        for row in rows[:count]
    ]


def solutions(shared: Path, count: int, seed: int) -> list[Pair]:
    """Questions of gsm8k's test, which the base has not seen: their own solution against that of the
    question whose solution is next in length."""
    rows = rows_of(shared / "data" / "gsm8k" / "test.jsonl")
    texts = [MARKED.sub("", row["answer"]).strip() for row in rows]
    order = sorted(range(len(rows)), key=lambda number: len(texts[number]))
    beside = dict(zip(order, [*order[1:], order[-2]], strict=True))
    numbers = list(range(len(rows)))
    random.Random(seed).shuffle(numbers)
    return [pair(rows[n]["question"], texts[n], texts[beside[n]]) for n in numbers[:count]]


def stories(shared: Path, count: int, seed: int) -> list[Pair]:
    """How a story begins, and how it goes on against how another one does. The base has learnt to
    write such stories."""
    rows = rows_of(shared / "data" / "tinystories" / "stories_cased.jsonl")
    told = [SENTENCE.split(row["text"].replace("\n", " ").strip())[:4] for row in rows]
    told = [one for one in told if len(one) == 4]
    random.Random(seed).shuffle(told)
    ends = [" ".join(one[2:]) for one in told[: count + 1]]
    return [
        pair(f"Go on with this story: {' '.join(told[n][:2])}", ends[n], ends[n + 1])
        for n in range(min(count, len(ends) - 1))
    ]


def spoken(label: str) -> str:
    """ "AddToPlaylist" -> "add to playlist"."""
    return WORDS.sub(" ", label).lower()


def pair(prompt: str, chosen: str, rejected: str) -> Pair:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def swapped(rows: Iterable[Mapping[str, str]]) -> list[Pair]:
    """The same pairs the wrong way round."""
    return [pair(row["prompt"], row["rejected"], row["chosen"]) for row in rows]


def write(file: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    """Write rows to a JSONL file, whose name is returned."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return str(file)
