"""A task as a search sees it, and the truth about its settings that no search sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from table import Table, scores_of
from tasks import CONFIRM_ROWS, EVALUATIONS, SEEDS, SETTINGS, VALIDATION_ROWS, settings_of, space_of

from loraloom.records import Score
from loraloom.search.compare import average, mean_cost, seeds_difference
from loraloom.search.default_space import RATE_REACH
from loraloom.search.dimensions import Choices, choices
from loraloom.search.space import ALPHA, RANK, RATE, Space

NEAR_ENOUGH = 0.99
"""Of the way from the bare base to the best setting."""
ERRORS = 2.0

Place = tuple[int, int]
"""(setting, seed) of the table."""


class World:
    """A complete table, read as scores.

    Attributes:
        plan: the plan's own setting, as the searcher wants it.
        space: the whole grid.
        planned: the part of it that `tune` searches by itself: rates within a factor of 4 of the plan's.
        settings: every setting of the grid; their places are the table's.

    Raises:
        ValueError: the table is not complete.
    """

    def __init__(self, table: Table) -> None:
        if not table.done.all():
            raise ValueError(f"{int((~table.done).sum())} trainings of the table are missing")
        self.table = table
        self.plan = {**SETTINGS, RATE: table.plan_rate, ALPHA: SETTINGS[RANK] * table.plan_scale}
        self.space = space_of(self.plan)
        self.planned = _planned(self.space, table.plan_rate)
        self.settings = settings_of(self.space)
        self._numbers = {_key(params): number for number, params in enumerate(self.settings)}
        self._splits = np.split(table.weights, [VALIDATION_ROWS, VALIDATION_ROWS + CONFIRM_ROWS])
        self.score = lru_cache(maxsize=None)(self._score)

    def number(self, params: Mapping[str, Any]) -> int:
        """Place of a setting in the table."""
        return self._numbers[_key(params)]

    # What a search sees

    def _score(self, place: Place, turn: int) -> Score:
        """Validation at one of the evaluations."""
        return scores_of(self.table.validation[place][turn], self._splits[0], "validation")

    def best(self, place: Place, turns: int = EVALUATIONS) -> Score:
        """The best of the first evaluations."""
        return min((self.score(place, turn) for turn in range(turns)), key=mean_cost)

    def confirm(self, place: Place) -> Score:
        return scores_of(self.table.held[place][:CONFIRM_ROWS], self._splits[1], "confirm")

    @cached_property
    def base(self) -> Score:
        """The bare base on validation."""
        return scores_of(self.table.base[:VALIDATION_ROWS], self._splits[0], "validation")

    # What no search sees

    @cached_property
    def tests(self) -> list[list[Score]]:
        """Test scores of every setting, one a seed."""
        held = self.table.held[:, :, CONFIRM_ROWS:]
        return [[scores_of(rows, self._splits[2], "test") for rows in seeds] for seeds in held]

    @cached_property
    def truth(self) -> np.ndarray:
        """Test loss of every setting, over its seeds."""
        return np.asarray([mean_cost(average(seeds)) for seeds in self.tests])

    @cached_property
    def shares(self) -> np.ndarray:
        """How far each setting gets from the bare base (0) to the best setting (1)."""
        base = mean_cost(scores_of(self.table.base[VALIDATION_ROWS + CONFIRM_ROWS :], self._splits[2], "test"))
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
    rates = space[RATE]
    assert isinstance(rates, Choices)
    near = [rate for rate in rates.values if 1 / RATE_REACH <= round(rate / plan_rate, 2) <= RATE_REACH]
    return replace(space, dimensions=tuple(choices(RATE, near) if one is rates else one for one in space.dimensions))


def _key(params: Mapping[str, Any]) -> str:
    return repr(sorted(params.items()))
