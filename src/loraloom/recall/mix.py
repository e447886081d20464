"""How much of what a training step holds, how many steps there are, and what is replayed first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loraloom.recall.recipe import Phase, Recipe
from loraloom.recall.state import Entry

RISE = 0.1
"""Nats a token: an item whose loss rose by so much since its last rehearsal is replayed twice as
often."""
MOST_RISES = 4.0
PASSES = 2
"""That the rows of a step are parted in, by their length."""


@dataclass(frozen=True)
class Mix:
    """Rows of one step, by what they are.

    Attributes:
        new, replayed: of items, by their forms.
        unknown: about names that nobody wrote.
        neighbours: about other names, in sentences that only begin.
        anchors: that the bare base wrote.
        asked: its own answers to questions about the world.
        anchor_weight, neighbour_weight, asked_weight: of the divergence from the frozen base, averaged
            over the step's rows of the kind.
    """

    new: int
    replayed: int
    unknown: int
    anchors: int
    anchor_weight: float
    neighbours: int = 0
    neighbour_weight: float = 0.0
    asked: int = 0
    asked_weight: float = 0.0


def wake_mix(recipe: Recipe, *, has_old: bool) -> Mix:
    """A step of learning something new."""
    replayed = round(recipe.replayed * recipe.rows) if has_old else 0
    return _mix(recipe, recipe.wake, recipe.rows - replayed, replayed)


def sleep_mix(recipe: Recipe, *, settled: int = 1, fresh: int = 0, ways: int = 0) -> Mix:
    """A step of settling everything: all rows are of the journal, or follow from it.

    Args:
        settled: rows that were trained before.
        fresh: rows of what follows and is not answered yet.
        ways: rows of ways on a map that are answered.
    """
    share = recipe.derived_passes * fresh / _draws(recipe, settled, fresh, ways)
    new = min(round(share * recipe.rows), round(recipe.derived_share * recipe.rows))
    return _mix(recipe, recipe.sleep, new, recipe.rows - new)


def sleep_steps(recipe: Recipe, *, settled: int, fresh: int = 0, ways: int = 0) -> int:
    """Steps of a sleep, of `recipe.rows` rows each."""
    return max(recipe.fewest_steps, math.ceil(_draws(recipe, settled, fresh, ways) / recipe.rows))


def _draws(recipe: Recipe, settled: int, fresh: int, ways: int) -> float:
    return recipe.sleep.passes * settled + recipe.derived_passes * fresh + recipe.way_passes * ways


def _mix(recipe: Recipe, phase: Phase, new: int, replayed: int) -> Mix:
    return Mix(
        new,
        replayed,
        recipe.unknown,
        phase.anchors,
        phase.anchor_weight,
        recipe.neighbours,
        recipe.neighbour_weight,
        phase.asked,
        phase.asked_weight,
    )


def steps_for(recipe: Recipe, forms: int, rows: int, passes: float) -> int:
    """Steps of `rows` rows for so many passes over the forms."""
    return max(recipe.fewest_steps, math.ceil(passes * forms / max(1, rows)))


def replay_weights(entries: Sequence[Entry], losses: Mapping[str, float]) -> NDArray[np.float64]:
    """How often each item is replayed, relative to the others: by what it matters, how often it was
    written, and how much of it has faded.

    Args:
        losses: of the answers now, by id, in nats a token.
    """
    weights = [
        entry.item.salience * math.sqrt(entry.sightings) * (1 + _rises(entry, losses[entry.id]))
        for entry in entries
    ]
    return np.array(weights, dtype=np.float64)


def _rises(entry: Entry, now: float) -> float:
    before = 0.0 if entry.loss is None else entry.loss
    return min(MOST_RISES, max(0.0, now - before) / RISE)


class Pool:
    """Rows that are drawn for a step.

    Args:
        rows: their numbers.
        weights: draw by these; None draws those first that were drawn least.
    """

    def __init__(self, rows: Sequence[int], weights: NDArray[np.float64] | None = None) -> None:
        self.rows = np.asarray(rows, dtype=np.int64)
        self.weights = weights
        self._drawn = np.zeros(len(self.rows))
        self._cost = np.ones(len(self.rows))

    def draw(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """So many different rows, or all there are."""
        count = min(count, len(self.rows))
        if not count:
            return self.rows[:0]
        if self.weights is not None:
            shares = self.weights / self.weights.sum()
            places = rng.choice(len(self.rows), size=count, replace=False, p=shares)
        else:
            places = np.argsort(self._drawn + rng.random(len(self.rows)))[:count]
        self._drawn[places] += self._cost[places]
        return self.rows[places]

    def rest(self, rows: Sequence[int], times: float) -> None:
        """Draw these rows so many times more seldom from now on, where rows come in turn."""
        self._cost[np.isin(self.rows, rows)] = times


class StepMix:
    """The rows of each step, so many of each pool, the shortest first. To be asked once a step.

    Args:
        lengths: tokens of every row: those of a pass are padded to the longest of them.

    Attributes:
        pools: (pool, rows of a step).
    """

    def __init__(
        self, pools: Sequence[tuple[Pool, int]], lengths: Sequence[int] | NDArray[np.int64], seed: int
    ) -> None:
        self.pools = list(pools)
        self.lengths = np.asarray(lengths)
        self.seed = seed

    @property
    def steps_per_epoch(self) -> int:
        """Of the pool that takes longest to be gone through."""
        return max(1, *(-(-len(pool.rows) // count) for pool, count in self.pools if count))

    def rows_of_step(self, step: int) -> NDArray[np.int64]:
        """Row numbers of a step."""
        rng = np.random.default_rng([self.seed, step])
        rows = np.concatenate([pool.draw(count, rng) for pool, count in self.pools])
        return rows[np.argsort(self.lengths[rows], kind="stable")]

    @property
    def micro(self) -> int:
        """Rows of a pass: a step takes several, as its rows differ much in length."""
        rows = sum(min(count, len(pool.rows)) for pool, count in self.pools)
        return max(1, math.ceil(rows / PASSES))


class Phases:
    """One mix after another.

    Args:
        first: of the steps before `until`.
        then: of all later ones.
    """

    def __init__(self, first: StepMix, until: int, then: StepMix) -> None:
        self.first, self.until, self.then = first, until, then

    @property
    def steps_per_epoch(self) -> int:
        """Of the later mix."""
        return self.then.steps_per_epoch

    def rows_of_step(self, step: int) -> NDArray[np.int64]:
        """Row numbers of a step."""
        return (self.first if step < self.until else self.then).rows_of_step(step)

    @property
    def micro(self) -> int:
        """Rows of a pass."""
        return max(self.first.micro, self.then.micro)
