"""A task as a search sees it, and the truth about its settings that no search sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from definitions import DEFINITIONS, WARMUP, Definition
from table import Table, path_of, scores_of
from tasks import EVALUATIONS, SEEDS, settings_of

from loraloom.data.split import LEAST_FOR_RACE
from loraloom.records import Score
from loraloom.search.compare import average, mean_cost, seeds_difference
from loraloom.search.default_space import RATE_REACH
from loraloom.search.dimensions import Choices, choices
from loraloom.search.space import ALPHA, BATCH, RANK, RATE, Space

NEAR_ENOUGH = 0.99
"""Of the way from the bare base to the best setting."""
ERRORS = 2.0
SCHEDULE = "training.lr_scheduler_type"

Place = tuple[int, int]
"""(setting, seed) of the table."""


class World:
    """A complete table, read as scores.

    Attributes:
        plan: the plan's own setting, as the searcher wants it.
        space: the whole grid.
        planned: the part of it that `tune` searches by itself: rates within a factor of 4 of the plan's;
            all of a grid without rates.
        before: a task with the same base that was searched before.
        settings: every setting of the grid; their places are the table's.

    Raises:
        ValueError: the table is not complete, or of another task.
    """

    def __init__(
        self, table: Table, definition: Definition = DEFINITIONS["stories"], before: World | None = None
    ) -> None:
        if not table.done.all():
            raise ValueError(f"{int((~table.done).sum())} trainings of the table are missing")
        if len(table.weights) != definition.validation_rows + definition.held_rows:
            raise ValueError(f"the table has {len(table.weights)} rows: it is of another task")
        settings = definition.settings
        self.table, self.before = table, before
        self.plan = {**settings, RATE: table.plan_rate, ALPHA: settings[RANK] * table.plan_scale}
        self.space = definition.space(self.plan)
        self.planned = _planned(self.space, table.plan_rate)
        self.settings = settings_of(self.space)
        self._rows = definition.validation_rows
        self._numbers = {_key(params): number for number, params in enumerate(self.settings)}
        self._splits = np.split(table.weights, [self._rows, 2 * self._rows])
        self.score = lru_cache(maxsize=None)(self._score)

    @classmethod
    def of(cls, folder: Path, task: str) -> World:
        """The table of a task as it lies in a folder, and that of the task before it."""
        definition = DEFINITIONS[task]
        before = cls.of(folder, definition.after) if definition.after else None
        return cls(Table.read(path_of(folder, task)), definition, before)

    def number(self, params: Mapping[str, Any]) -> int:
        """Place of a setting in the table."""
        return self._numbers[_key(params)]

    def batch_of(self, setting: int) -> int:
        """Rows of a step."""
        return {**self.plan, **self.settings[setting]}[BATCH]

    @property
    def warmup(self) -> float:
        return float(self.plan[WARMUP])

    @property
    def shape(self) -> tuple[str, float]:
        """What the learning rate does, the same for all settings."""
        return self.plan[SCHEDULE], self.warmup

    # What a search sees

    def _score(self, place: Place, turn: int) -> Score:
        """Validation at one of the evaluations."""
        return scores_of(self.table.validation[place][turn], self._splits[0], "validation")

    def best(self, place: Place, turns: int = EVALUATIONS) -> Score:
        """The best of the first evaluations."""
        return min((self.score(place, turn) for turn in range(turns)), key=mean_cost)

    def confirm(self, place: Place) -> Score:
        return scores_of(self.table.held[place][: self._rows], self._splits[1], "confirm")

    @property
    def races_apart(self) -> bool:
        """Whether so many rows are given that half of them are kept for the race."""
        return self._rows >= LEAST_FOR_RACE

    def race(self, place: Place) -> Score:
        """What a race judges by: rows kept for it, or else validation once more."""
        return self.confirm(place) if self.races_apart else self.best(place)

    @cached_property
    def base(self) -> Score:
        """The bare base on validation."""
        return scores_of(self.table.base[: self._rows], self._splits[0], "validation")

    # What no search sees

    @cached_property
    def tests(self) -> list[list[Score]]:
        """Test scores of every setting, one a seed."""
        held = self.table.held[:, :, self._rows :]
        return [[scores_of(rows, self._splits[2], "test") for rows in seeds] for seeds in held]

    @cached_property
    def truth(self) -> np.ndarray:
        """Test loss of every setting, over its seeds."""
        return np.asarray([mean_cost(average(seeds)) for seeds in self.tests])

    @cached_property
    def shares(self) -> np.ndarray:
        """How far each setting gets from the bare base (0) to the best setting (1)."""
        base = mean_cost(scores_of(self.table.base[2 * self._rows :], self._splits[2], "test"))
        return (base - self.truth) / (base - self.truth.min())

    @cached_property
    def good(self) -> np.ndarray:
        """The target: 99% of the way, or not surely worse than the best setting."""
        best = self.tests[int(self.truth.argmin())]
        gaps = [seeds_difference(seeds, best) for seeds in self.tests]
        return (self.shares >= NEAR_ENOUGH) | np.asarray([gap.mean <= ERRORS * gap.se for gap in gaps])

    @cached_property
    def default(self) -> int:
        """The plan's own setting."""
        return self.number(self.space.clip(self.plan))

    def seed_of(self, replay: int, offset: int = 0) -> int:
        """Which of the table's seeds a training of this replay has."""
        return (replay + offset) % SEEDS


def _planned(space: Space, plan_rate: float) -> Space:
    """A space without the rates that lie further from the plan's than `tune` goes."""
    if RATE not in space:
        return space
    rates = space[RATE]
    assert isinstance(rates, Choices)
    near = [rate for rate in rates.values if 1 / RATE_REACH <= round(rate / plan_rate, 2) <= RATE_REACH]
    return replace(
        space, dimensions=tuple(choices(RATE, near) if one is rates else one for one in space.dimensions)
    )


def _key(params: Mapping[str, Any]) -> str:
    return repr(sorted(params.items()))
