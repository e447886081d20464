"""Where the next candidate lies, by sampler name.

Optuna draws (tpe, gp, random, sobol); grid and one_factor are lists of ours. A model says nothing
sensible before it has seen a few results, so tpe and gp begin with scrambled Sobol points, which fill
the space more evenly than chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from random import Random
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from loraloom.config import names
from loraloom.config.choices import SAMPLERS, chosen
from loraloom.search.optuna_guard import quiet
from loraloom.search.past import Past
from loraloom.search.second_wave import Waves, first_wave
from loraloom.search.space import Point, Space

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

Model: TypeAlias = Literal["gp", "tpe"]

ANCHORS = 4
NO_MODEL_BELOW = 8
"""With fewer trials all are used up before a model knows anything."""
TPE_FROM = 64
TPE_STARTUP = 10
"""Optuna's own default; a Gaussian process can do with two points more than dimensions (4 at least)."""
LEVELS = (5, 9, 17, 33)


class Sampler(Protocol):
    """Says where the next candidate lies."""

    @property
    def censored(self) -> bool:
        """Whether a pruned trial is told as complete, at the cost that it would
        probably have reached."""
        ...

    def waits(self, past: Past) -> bool:
        """Whether there is nothing to say before more is known of the trials that were asked."""
        ...

    def next(self, past: Past) -> Point | BaseSampler | None:
        """A point, or the Optuna sampler that is to draw it, or None when nothing is left."""
        ...


class NeverWaits:
    """What samplers share that always have an answer."""

    def waits(self, past: Past) -> bool:
        return False


@dataclass(frozen=True)
class Drawn(NeverWaits):
    """Every candidate from one Optuna sampler."""

    sampler: BaseSampler
    censored: bool = False

    def next(self, past: Past) -> Point | BaseSampler | None:
        return self.sampler


@dataclass(frozen=True)
class Listed(NeverWaits):
    """Points written down beforehand, in their order."""

    points: Sequence[Point]
    censored: bool = False

    def next(self, past: Past) -> Point | BaseSampler | None:
        return next((point for point in self.points if past.is_new(point)), None)


@dataclass(frozen=True)
class Warmed(NeverWaits):
    """A model that speaks once `designed` trials were asked and `needed` results are
    known; Sobol points until then."""

    sobol: BaseSampler
    model: BaseSampler
    designed: int
    needed: int
    censored: bool

    def next(self, past: Past) -> Point | BaseSampler | None:
        return self.model if past.asked >= self.designed and past.learned >= self.needed else self.sobol


@dataclass(frozen=True)
class SamplerInputs:
    """The search that a sampler is made for.

    Attributes:
        baseline: the plan's setting by dotted key: what one_factor varies.
        trials: how many candidates the whole search has.
        pack_size: how many train at a time.
        seed: of every draw.
        wide: whether the search starts wide; `auto` then draws in two waves (`search.second_wave`).
    """

    space: Space
    baseline: Mapping[str, Any]
    trials: int
    pack_size: int
    seed: int
    wide: bool = False


def make_sampler(name: str, inputs: SamplerInputs) -> Sampler:
    """The sampler of a name.

    Raises:
        ConfigError: there is no sampler of that name.
    """
    return chosen(SAMPLERS, name, names.SAMPLER)(inputs)


def automatic(inputs: SamplerInputs) -> Sampler:
    """Two waves where the search starts wide; else a model, or Sobol points where a model would learn
    nothing."""
    if inputs.wide:
        waves = first_wave(inputs.trials)
        return Waves(inputs.space, _sobol(inputs.seed), waves, inputs.seed)
    model = _auto_model(inputs.space, inputs.trials, inputs.pack_size)
    return _warmed(model, inputs, ANCHORS + sobol_points(inputs.trials)) if model else sobol(inputs)


def tpe(inputs: SamplerInputs) -> Sampler:
    """Tree-structured Parzen estimator."""
    return _warmed("tpe", inputs, 0)


def gp(inputs: SamplerInputs) -> Sampler:
    """Gaussian process."""
    return _warmed("gp", inputs, 0)


def random(inputs: SamplerInputs) -> Sampler:
    """Independent draws."""
    from optuna.samplers import RandomSampler

    return Drawn(RandomSampler(seed=inputs.seed))


def sobol(inputs: SamplerInputs) -> Sampler:
    """Scrambled Sobol points."""
    return Drawn(_sobol(inputs.seed))


def grid(inputs: SamplerInputs) -> Sampler:
    """Every point of a grid."""
    return Listed(_grid(inputs.space, inputs.trials, inputs.seed))


def each_factor(inputs: SamplerInputs) -> Sampler:
    """One setting changed at a time."""
    return Listed(one_factor(inputs.space, inputs.baseline, inputs.trials))


def sobol_points(trials: int) -> int:
    """Sobol points before the model in an automatic search: 6 of 16, 10 of 32, 24 of 128 trials."""
    return round(6 * (trials / 16) ** (2 / 3))


def one_factor(space: Space, baseline: Mapping[str, Any], trials: int) -> list[Point]:
    """The plan's setting with one dimension changed at a time: every dimension's
    nearest change first, then the next.

    A range takes five levels, evenly from end to end on its own scale; the one nearest to the plan's is
    left out. Where these are fewer than the trials, the levels in between follow.
    """
    points: list[Point] = []
    for levels in LEVELS:
        points += [point for point in _changes(space, baseline, levels) if point not in points]
        if len(points) >= trials:
            break
    return points


def _changes(space: Space, baseline: Mapping[str, Any], count: int) -> list[Point]:
    centre = space.point(baseline)
    ways: list[list[Point]] = []
    for dimension in space.searched:
        levels = dimension.levels(count)
        own = min(range(len(levels)), key=lambda place: _distance(levels, place, centre[dimension.key]))
        others = sorted(
            (place for place in range(len(levels)) if place != own), key=lambda place: abs(place - own)
        )
        changes: list[Point] = [{**centre, dimension.key: levels[place]} for place in others]
        ways.append(changes)
    return [point for together in zip_longest(*ways) for point in together if point is not None]


def _distance(levels: Sequence[Any], place: int, own: Any) -> float:
    """How far a level is from the plan's value: by ratio for positive numbers, else 0
    for the same and 1 for another."""
    level = levels[place]
    if isinstance(level, str) or isinstance(own, str):
        return float(level != own)
    return abs(level / own - 1) if own else abs(level)


def _grid(space: Space, trials: int, seed: int) -> list[Point]:
    """The whole grid in order; where it is larger than the search, in a drawn order, so
    that every part is seen."""
    points = space.grid(trials)
    if len(points) > trials:
        Random(seed).shuffle(points)
    return points


def _auto_model(space: Space, trials: int, pack_size: int) -> Model | None:
    """A Gaussian process for few trials in an ordered space, TPE for many or for words;
    nothing where nothing is learned."""
    if pack_size >= trials or trials < NO_MODEL_BELOW or not space.searched:
        return None
    return "tpe" if space.categorical or trials >= TPE_FROM else "gp"


def _warmed(model: Model, inputs: SamplerInputs, designed: int) -> Warmed:
    from optuna.samplers import GPSampler, TPESampler

    space, seed, sobol = inputs.space, inputs.seed, _sobol(inputs.seed)

    if model == "tpe":
        sampler: BaseSampler = TPESampler(multivariate=True, n_startup_trials=TPE_STARTUP, seed=seed)
        return Warmed(sobol, sampler, designed, TPE_STARTUP, censored=False)
    needed = max(4, len(space.searched) + 2)
    sampler = GPSampler(seed=seed, n_startup_trials=needed, warn_independent_sampling=False)
    return Warmed(sobol, sampler, designed, needed, censored=True)


def _sobol(seed: int) -> BaseSampler:
    """One sequence a study: the study keeps the place in it."""
    from optuna.samplers import QMCSampler

    with quiet():
        return QMCSampler(qmc_type="sobol", scramble=True, seed=seed, warn_independent_sampling=False)
