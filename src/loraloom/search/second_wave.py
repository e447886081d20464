"""The second half of a search that starts wide: drawn from what all of the first half showed at the first rung.

A response surface (every setting, its square and the products of two, by Bayesian ridge regression) is fitted to the costs
of the first half; each candidate of the second half is the lowest point of one surface drawn from its posterior (Thompson
sampling). A few dozen rough costs carry no finer model, and a draw keeps what is not known in play: for 32 and 48
candidates the winners lack half of what they lack without it (benchmarks/search); with fewer, it finds no more than Sobol's
points do. Sources: Box and Wilson 1951 (response surfaces), Thompson 1933; Russo et al., arXiv 1707.02038.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from loraloom.search.dimensions import Range
from loraloom.search.space import Point, Space

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from loraloom.search.samplers import Past

Floats = NDArray[np.float64]

FROM = 32
"""Searches of fewer candidates come in one wave."""
LEAST = 4
"""Fewer costs than this carry no surface."""
POOL = 512
"""Points among which the lowest is looked for."""
APART = 0.1
"""A point is new if it lies so far from every other in one dimension at least, as a share of that dimension: where the surface
falls towards an edge of the space, its lowest points would all be one."""
PRIOR, NOISE = 2.0, 0.5
"""Standard deviations of a coefficient and of a cost about the surface, where costs have been scaled to one."""


@dataclass(frozen=True)
class Early:
    """What is known of a candidate at the first rung: its point, its cost there (nan for none yet, infinite where it was not
    finite), and whether it is still on its way."""

    point: Point
    cost: float
    pending: bool


@dataclass(frozen=True)
class Waves:
    """Sobol points first, and once all of them have come to the first rung, points of the fitted surface.

    Args:
        size: candidates of the first wave; all of the search where it comes in one.
        seed: of the draws of the second.
    """

    space: Space
    sobol: BaseSampler
    size: int
    seed: int
    censored: bool = False

    def waits(self, past: Past) -> bool:
        """Whether the second wave still waits for some of the first."""
        return past.asked >= self.size and any(one.pending for one in past.early()[: self.size])

    def next(self, past: Past) -> Point | BaseSampler | None:
        """A point, or the sampler that is to draw it. What the surface proposes has not been asked before."""
        known = [one for one in past.early() if not math.isnan(one.cost)]
        if past.asked < self.size or sum(math.isfinite(one.cost) for one in known) < LEAST:
            return self.sobol
        rng = np.random.default_rng((self.seed, past.asked))
        new = [point for point in draw(self.space, POOL, rng) if past.is_new(point)]
        pool = apart(self.space, new, [one.point for one in past.early()])
        return lowest(self.space, known, pool, rng) if pool else self.sobol


def first_wave(trials: int) -> int:
    """How many candidates are asked for before the second wave."""
    return trials if trials < FROM else trials // 2


def lowest(space: Space, known: Sequence[Early], pool: Sequence[Point], rng: np.random.Generator) -> Point:
    """The point of the pool that is lowest on a surface drawn from the posterior."""
    costs = np.asarray([one.cost for one in known])
    finite = costs[np.isfinite(costs)]
    # What fails by far must not bend the surface where the others are told apart.
    costs = np.minimum(costs, 2 * np.median(finite) - finite.min())
    scaled = (costs - costs.mean()) / (costs.std() or 1.0)
    surface = features(space, [one.point for one in known])
    precision = surface.T @ surface / NOISE**2 + np.eye(surface.shape[1]) / PRIOR**2
    mean = np.linalg.solve(precision, surface.T @ scaled / NOISE**2)
    root = np.linalg.cholesky(precision)
    drawn = mean + np.linalg.solve(root.T, rng.standard_normal(len(mean)))
    return pool[int(np.argmin(features(space, pool) @ drawn))]


def features(space: Space, points: Sequence[Point]) -> Floats:
    """[points, coefficients]: one, every scale, its square, the products of two, and a column for each word."""
    x, words = places(space, points)
    products = [x[:, i] * x[:, j] for i in range(x.shape[1]) for j in range(i)]
    return np.stack([np.ones(len(points)), *x.T, *(x**2).T, *products, *words.T], axis=1)


def places(space: Space, points: Sequence[Point]) -> tuple[Floats, Floats]:
    """Where points lie: [points, scales] as shares of each scale, and [points, words] of 0 and 1."""
    scales = [dimension for dimension in space.searched if isinstance(dimension, Range) or dimension.ordered]
    labels = [(one.key, word) for one in space.searched if one not in scales for word in one.levels(0)]
    x = [[dimension.share(point[dimension.key]) for dimension in scales] for point in points]
    words = [[float(point[key] == word) for key, word in labels] for point in points]
    return np.asarray(x).reshape(len(points), len(scales)), np.asarray(words).reshape(len(points), len(labels))


def apart(space: Space, pool: Sequence[Point], others: Sequence[Point]) -> list[Point]:
    """Those of the pool that are near to none of the others."""
    if not pool or not others:
        return list(pool)
    own, known = (np.concatenate(places(space, points), axis=1) for points in (pool, others))
    nearest = np.abs(own[:, None, :] - known[None, :, :]).max(axis=2).min(axis=1)
    return [point for point, distance in zip(pool, nearest, strict=True) if distance >= APART]


def draw(space: Space, count: int, rng: np.random.Generator) -> list[Point]:
    """Points of the space: all of them where they are fewer than `count`, else so many by chance."""
    if space.size <= count:
        return space.grid(1)
    rows = rng.random((count, len(space.searched))).tolist()
    return [{one.key: one.at(share) for one, share in zip(space.searched, row, strict=True)} for row in rows]
