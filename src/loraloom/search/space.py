"""The search space: named dimensions by dotted key, and the way between a sampler's
point and a candidate's settings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any, TypeAlias

from loraloom.config import names
from loraloom.search.dimensions import Coordinate, Dimension, Range

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial

RATE = names.LEARNING_RATE
BATCH = names.PER_DEVICE_TRAIN_BATCH_SIZE
RANK = names.R
ALPHA = names.LORA_ALPHA
SCALE = "adapter.scale"
"""alpha / r: a dimension of ours beside a searched r, which reaches the candidate as
`adapter.lora_alpha`."""

Point: TypeAlias = dict[str, Coordinate]
"""Where a candidate lies, as the sampler knows it: one coordinate for each dimension
that is not frozen."""
Params: TypeAlias = dict[str, Any]
"""What a candidate is told, by dotted key of the config."""


@dataclass(frozen=True)
class Couplings:
    """Settings that move together, so that each dimension can be turned alone.

    Attributes:
        alpha_per_r: `lora_alpha` is this many times r, where r is searched and alpha is not.
        batch: the searched learning rate is that for this batch size; a candidate's
            grows with sqrt(batch).
        scale: the searched learning rate is that for this alpha/r; a candidate's falls as 1 / (alpha/r).
        rate_cap: no coupling lifts a candidate's learning rate above this.
    """

    alpha_per_r: float | None = None
    batch: float | None = None
    scale: float | None = None
    rate_cap: float | None = None


@dataclass(frozen=True)
class Space:
    """Dimensions in order of importance. A dimension with one value is frozen: it is
    set, never searched."""

    dimensions: tuple[Dimension, ...]
    couplings: Couplings = Couplings()

    @property
    def searched(self) -> tuple[Dimension, ...]:
        return tuple(dimension for dimension in self.dimensions if not dimension.frozen)

    @property
    def categorical(self) -> bool:
        """Whether some choices have no order, so that a Gaussian process has little to hold on to."""
        return any(
            not isinstance(dimension, Range) and not dimension.ordered for dimension in self.searched
        )

    @property
    def size(self) -> float:
        """How many different points there are: infinite with any continuous dimension."""
        return math.prod(dimension.size for dimension in self.searched)

    def __contains__(self, key: object) -> bool:
        return any(dimension.key == key for dimension in self.dimensions)

    def __getitem__(self, key: str) -> Dimension:
        return next(dimension for dimension in self.dimensions if dimension.key == key)

    def distributions(self) -> dict[str, BaseDistribution]:
        """What Optuna draws from, by dimension; frozen ones are left out."""
        return {dimension.key: dimension.distribution for dimension in self.searched}

    def suggest(self, trial: Trial) -> Params:
        """Let an Optuna trial draw a point; returns the settings that it stands for."""
        return self.params({dimension.key: dimension.suggest(trial) for dimension in self.searched})

    def tied_to(self, baseline: Mapping[str, Any]) -> Space:
        """This space with alpha/r held where `baseline` has it, if r is searched and alpha is not."""
        rank = baseline.get(RANK)
        alpha = baseline.get(ALPHA)
        if RANK not in self or ALPHA in self or SCALE in self or not rank or not alpha:
            return self
        return replace(self, couplings=replace(self.couplings, alpha_per_r=float(alpha) / float(rank)))

    def params(self, point: Mapping[str, Coordinate]) -> Params:
        """The settings of a point: keys of the config only, ready for `--set`."""
        params = {dimension.key: self._setting(dimension, point) for dimension in self.dimensions}
        scale = params.pop(SCALE, self.couplings.alpha_per_r)
        if scale is not None:
            params[ALPHA] = float(scale * params[RANK])
        if RATE in params:
            params[RATE] = self._capped(params[RATE] * self._rate_factor(params))
        return params

    def point(self, params: Mapping[str, Any]) -> Point:
        """The point nearest to some settings; what they leave out lies in the middle
        (or first in its list)."""
        known = self.uncoupled(params)
        return {
            dimension.key: dimension.coordinate(known.get(dimension.key)) for dimension in self.searched
        }

    def uncoupled(self, params: Mapping[str, Any]) -> Params:
        """Settings as the dimensions count them: alpha/r as one, and the learning rate
        without what its couplings do."""
        known = dict(params)
        if SCALE in self and params.get(RANK) and params.get(ALPHA):
            known[SCALE] = params[ALPHA] / params[RANK]
        if params.get(RATE):
            known[RATE] = params[RATE] / self._rate_factor(params)
        return known

    def clip(self, params: Mapping[str, Any]) -> Params:
        """The nearest settings that the space holds."""
        return self.params(self.point(params))

    def exactly(self, params: Mapping[str, Any]) -> Params:
        """The searched settings as `params` has them, inside the space or not."""
        return {key: params.get(key, value) for key, value in self.clip(params).items()}

    def grid(self, trials: int) -> list[Point]:
        """Every combination of choices; ranges are cut into as many levels (2 to 7) as
        let the grid fit into `trials`."""
        ranges = [dimension for dimension in self.searched if isinstance(dimension, Range)]
        fixed = math.prod(
            len(dimension.levels(0)) for dimension in self.searched if dimension not in ranges
        )
        count = int((trials / fixed) ** (1 / len(ranges)) + 1e-9) if ranges else 0
        levels = [dimension.levels(min(max(count, 2), 7)) for dimension in self.searched]
        return [dict(zip(self.distributions(), corner, strict=True)) for corner in product(*levels)]

    def _setting(self, dimension: Dimension, point: Mapping[str, Coordinate]) -> Any:
        return dimension.setting(dimension.levels(1)[0] if dimension.frozen else point[dimension.key])

    def _rate_factor(self, params: Mapping[str, Any]) -> float:
        """What the couplings multiply the searched learning rate by."""
        couplings = self.couplings
        factor = 1.0
        if couplings.batch and params.get(BATCH):
            factor *= math.sqrt(params[BATCH] / couplings.batch)
        if couplings.scale and params.get(RANK) and params.get(ALPHA):
            factor *= couplings.scale * params[RANK] / params[ALPHA]
        return factor

    def _capped(self, rate: float) -> float:
        cap = self.couplings.rate_cap
        return float(f"{rate if cap is None else min(rate, cap):.4g}")
