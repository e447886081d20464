"""The second half of a search that starts wide: drawn from what all of the first half
showed at the first rung.

A response surface (every setting, its square and the products of two, by Bayesian ridge regression) is
fitted to the costs of the first half; each candidate of the second half is the lowest point of one
surface drawn from its posterior (Thompson sampling). A few dozen rough costs carry no finer model, and a
draw keeps what is not known in play: for 32 and 48 candidates the winners lack half of what they lack
without it (benchmarks/search); with fewer, it finds no more than Sobol's points do. Sources: Box and
Wilson 1951 (response surfaces), Thompson 1933; Russo et al., arXiv 1707.02038.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from loraloom.search.dimensions import Dimension, Range
from loraloom.search.past import Past
from loraloom.search.space import Point, Space

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

Floats = NDArray[np.float64]

FROM = 32
"""Searches of fewer candidates come in one wave."""
LEAST = 4
"""Fewer costs than this carry no surface."""
POOL = 512
"""Points among which the lowest is looked for."""
APART = 0.1
"""A point is new if it lies so far from every other in one dimension at least, as a share of that
dimension: where the surface falls towards an edge of the space, its lowest points would all be one."""
PRIOR = 2.0
NOISE = 0.5
"""Standard deviations of a coefficient and of a cost about the surface, where costs
have been scaled to one."""


@dataclass(frozen=True)
class Waves:
    """Sobol points first, and once all of them have come to the first rung, points of
    the fitted surface.

    Args:
        size: candidates of the first wave; all of the search where it comes in one.
        seed: of the draws of the second.
    """

    space: Space
    sobol: BaseSampler
    size: int
    seed: int
    censored: bool = False
    _asked: list[Floats] = field(default_factory=list[Floats])
    """The places of all that were asked, in their order: they stay."""

    def waits(self, past: Past) -> bool:
        """Whether the second wave still waits for some of the first."""
        return past.asked >= self.size and any(one.pending for one in islice(past.early(), self.size))

    def next(self, past: Past) -> Point | BaseSampler | None:
        """A point, or the sampler that is to draw it. What the surface proposes has not
        been asked before."""
        if past.asked < self.size:
            return self.sobol
        asked = list(past.early())
        costs = np.asarray([one.cost for one in asked])
        if np.isfinite(costs).sum() < LEAST:
            return self.sobol
        self._asked.extend(places(self.space, [one.point for one in asked[len(self._asked) :]]))
        rng = np.random.default_rng((self.seed, past.asked))
        pool = draw(self.space, POOL, rng)
        others = np.stack(self._asked)
        known = ~np.isnan(costs)
        own = places(self.space, pool)
        for place in lowest_first(own, others[known], costs[known], len(scales(self.space)), rng):
            if is_apart(own[place], others) and past.is_new(pool[place]):
                return pool[place]
        return self.sobol


def first_wave(trials: int) -> int:
    """How many candidates are asked for before the second wave."""
    return trials if trials < FROM else trials // 2


def lowest_first(
    pool: Floats, known: Floats, costs: Floats, scales: int, rng: np.random.Generator
) -> list[int]:
    """The order of a pool of places by a surface drawn from the posterior, given places
    whose costs are known."""
    finite = costs[np.isfinite(costs)]
    # What fails by far must not bend the surface where the others are told apart.
    costs = np.minimum(costs, 2 * np.median(finite) - finite.min())
    scaled = (costs - costs.mean()) / (costs.std() or 1.0)
    surface = features(known, scales)
    precision = surface.T @ surface / NOISE**2 + np.eye(surface.shape[1]) / PRIOR**2
    mean = np.linalg.solve(precision, surface.T @ scaled / NOISE**2)
    root = np.linalg.cholesky(precision)
    drawn = mean + np.linalg.solve(root.T, rng.standard_normal(len(mean)))
    return np.argsort(features(pool, scales) @ drawn, kind="stable").tolist()


def features(places: Floats, scales: int) -> Floats:
    """[points, coefficients]: one, every scale, its square, the products of two, and a
    column for each word."""
    x = places[:, :scales]
    words = places[:, scales:]
    products = [x[:, i] * x[:, j] for i in range(scales) for j in range(i)]
    return np.stack([np.ones(len(x)), *x.T, *(x**2).T, *products, *words.T], axis=1)


def places(space: Space, points: Sequence[Point]) -> Floats:
    """Where points lie, [points, scales and words]: shares of each scale, then 0 and 1 for each word."""
    measured = scales(space)
    labels = [(one.key, word) for one in space.searched if one not in measured for word in one.levels(0)]
    rows = [
        [dimension.share(point[dimension.key]) for dimension in measured]
        + [float(point[key] == word) for key, word in labels]
        for point in points
    ]
    return np.asarray(rows).reshape(len(points), len(measured) + len(labels))


def scales(space: Space) -> list[Dimension]:
    """The dimensions on which points lie nearer or farther; the others are words."""
    return [
        dimension for dimension in space.searched if isinstance(dimension, Range) or dimension.ordered
    ]


def is_apart(place: Floats, others: Floats) -> bool:
    """Whether a place is near to none of the others."""
    return bool((np.abs(others - place).max(axis=1) >= APART).all())


def draw(space: Space, count: int, rng: np.random.Generator) -> list[Point]:
    """Points of the space: all of them where they are fewer than `count`, else so many by chance."""
    if space.size <= count:
        return space.grid(1)
    rows = rng.random((count, len(space.searched))).tolist()
    return [
        {one.key: one.at(share) for one, share in zip(space.searched, row, strict=True)} for row in rows
    ]
