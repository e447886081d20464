"""PED-ANOVA (Watanabe, Bansal and Hutter 2023, arXiv:2304.10255): how differently a
setting is spread among good candidates.

Optuna's `PedAnovaImportanceEvaluator` gives the same numbers (tests/search/test_ped_anova.py holds the
two together), but to import it is to import scikit-learn. Shapes: G places of a grid, or choices; K of
them where candidates are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from loraloom.search.compare import Floats

GRID = 50
"""Places that the range of a number is cut into."""
PRIOR = 1.0
"""Weight of "it could be anywhere", counted in candidates: a few good ones alone would say too much."""
NARROWEST = 0.5 / 1.64
"""Least width of a kernel in places of the grid: nine tenths of it then lie in its own place."""
TINY = 1e-12

_erf = np.vectorize(math.erf, otypes=[np.float64])


def good_ones(costs: Sequence[float], share: float) -> NDArray[np.bool_]:
    """Which candidates are among the best `share` of all; those that tie with the last of them too."""
    values = np.asarray(costs, dtype=np.float64)
    return values <= np.sort(values)[math.ceil(share * len(values)) - 1]


def divergence_of_numbers(values: Sequence[float], good: NDArray[np.bool_], *, log: bool) -> float:
    """Pearson divergence between the spreads of a number among good candidates and
    among all; 0 where they are alike.

    Args:
        values: of each candidate; not all the same.
        good: which candidates are good.
        log: whether the number is spread over a log scale.
    """
    scaled = np.log(values) if log else np.asarray(values, dtype=np.float64)
    step = (scaled.max() - scaled.min()) / (GRID - 1)
    places = np.clip(np.ceil((scaled - scaled.min()) / step - 0.5).astype(np.int64), 0, GRID - 1)
    return _divergence(
        *(_spread_of_numbers(np.bincount(some, minlength=GRID)) for some in (places[good], places))
    )


def divergence_of_choices(choices: Sequence[int], good: NDArray[np.bool_]) -> float:
    """The same for a setting without an order; `choices` are numbers from 0."""
    places = np.asarray(choices, dtype=np.int64)
    size = int(places.max()) + 1
    return _divergence(
        *(_spread_of_choices(np.bincount(some, minlength=size)) for some in (places[good], places))
    )


def _divergence(good_G: Floats, all_G: Floats) -> float:
    all_G = all_G + TINY
    return float(all_G @ ((good_G + TINY) / all_G - 1) ** 2)


def _spread_of_numbers(counts_G: NDArray[np.int64]) -> Floats:
    """Probability of each place: a normal kernel around each candidate, one as wide as
    the grid for the prior."""
    size = len(counts_G)
    places_K = np.flatnonzero(counts_G).astype(np.float64)
    weights_K = counts_G[counts_G > 0]
    centres = np.append(places_K, (size - 1) / 2)
    widths = np.append(np.full_like(places_K, max(_bandwidth(places_K, weights_K), NARROWEST)), size)
    edges = np.arange(size + 1) - 0.5
    below = (1 + _erf((edges - centres[:, None]) / (widths[:, None] * math.sqrt(2)))) / 2
    kernels = np.diff(below) / (below[:, -1:] - below[:, :1])
    weights = np.append(weights_K, PRIOR)
    return weights @ kernels / weights.sum()


def _bandwidth(places_K: Floats, weights_K: NDArray[np.int64]) -> float:
    """Scott's rule (Multivariate Density Estimation, 1992) over weighted places."""
    upto_K = np.cumsum(weights_K)
    total = int(upto_K[-1])
    mean = float(places_K @ weights_K) / total
    deviation = math.sqrt(float((places_K - mean) ** 2 @ weights_K) / max(1, total - 1))
    first = np.searchsorted(upto_K, total // 4, side="left")
    third = min(len(places_K) - 1, int(np.searchsorted(upto_K, total * 3 // 4, side="right")))
    return 1.059 * min(float(places_K[third] - places_K[first]) / 1.34, deviation) * total**-0.2


def _spread_of_choices(counts_G: NDArray[np.int64]) -> Floats:
    """Probability of each choice: those that were made, blurred a little, and an even
    one for the prior."""
    made_K = np.flatnonzero(counts_G)
    kernels = np.full((len(made_K) + 1, len(counts_G)), PRIOR / (len(made_K) + 1))
    kernels[np.arange(len(made_K)), made_K] += 1
    kernels /= kernels.sum(axis=1, keepdims=True)
    weights = np.append(counts_G[made_K], PRIOR)
    return weights @ kernels / weights.sum()
