"""Several adapters in one. A method is one file with `combined`, listed here once.

Each takes the updates (A [R, D], B [O, R], scale in B) of one layer, one from each adapter that has it,
with their weights, and returns one update.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from loraloom.adapters.combine import cat, dare, knots, linear, regmean, soup, svd, ties
from loraloom.adapters.combine.task import LayerTask

METHODS: Mapping[str, Callable[[LayerTask], tuple[Tensor, Tensor]]] = {
    "cat": cat.combined,
    "linear": linear.combined,
    "svd": svd.combined,
    "ties": ties.combined,
    "dare": dare.combined,
    "knots": knots.combined,
    "soup": soup.combined,
    "regmean": regmean.combined,
}
