"""A task loaded: the request as `tune` prepares it, the base, and packs that train
settings of its grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from definitions import DEFINITIONS, TRAIN_ROWS, Definition, Files

from loraloom.config.decode import load_config
from loraloom.data.rows import Row
from loraloom.pipeline.prepare import Prepared, prepare
from loraloom.pipeline.workbench import Workbench
from loraloom.plan.planner import candidate
from loraloom.records import Candidate
from loraloom.search.space import Space
from loraloom.train.pack import PackTrainer

SHARED = Path(__file__).resolve().parents[3] / "shared"
SEEDS = 3
EVALUATIONS = 8


@dataclass(frozen=True)
class Task:
    """A task that is loaded when it is first used."""

    name: str
    files: Files

    @property
    def definition(self) -> Definition:
        return DEFINITIONS[self.name]

    @cached_property
    def prepared(self) -> Prepared:
        """The request as `tune` prepares it, its splits cut to the benchmark's sizes."""
        made = prepare(
            load_config(None, {**self.definition.settings, **self.definition.source(self.files)})
        )
        rows, held = self.definition.validation_rows, spread(made.data.test, self.definition.held_rows)
        parts = len(held) // rows
        data = replace(
            made.data,
            train=spread(made.data.train, TRAIN_ROWS),
            validation=spread(made.data.validation, rows),
            confirm=held[::parts],
            test=[row for number, row in enumerate(held) if number % parts],
        )
        return replace(made, data=data)

    @cached_property
    def bench(self) -> Workbench:
        """Its base, its loss and its pack, loaded when they are first used."""
        return Workbench(self.prepared)

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

    @property
    def space(self) -> Space:
        """The grid round the plan's setting."""
        return self.definition.space(self.plan)

    def trainer(self) -> PackTrainer:
        """An empty pack on this task's rows."""
        return PackTrainer(
            self.bench.packed,
            self.prepared.data.train,
            self.bench.objective,
            task=self.prepared.task,
            pad_id=self.bench.base.pad_id,
            validation=self.validation,
            decide_by="loss",
            token_budget=self.prepared.plan.token_budget,
            signals=False,
        )

    def candidate(self, id: str, params: Mapping[str, Any], seed: int) -> Candidate:
        """A setting of the space with one of the table's seeds."""
        return candidate(self.prepared.plan, id, params, seed_offset=seed)


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
