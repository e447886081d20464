"""How many candidates should train at once: the time of a tick as measured in warm-up,
and what follows from it.

A tick takes about t = c0 + c1 * tokens + c2 * adapters: c0 is paid once however many candidates share
the tick (reading the weights, Python, launches), c1 is arithmetic, c2 what each adapter adds (its small
products, its optimiser step). Packing saves c0; where c0 is small there is little to save, and where c2
is large there is something to lose. So it is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

ENOUGH = 0.03
"""A pack that is this much slower than the fastest, as a share, is as good: the smaller
one learns more between waves."""


LEAST = 4
"""The plan's setting, its rate times 3 and over 3, and its second seed: the first
candidates tell most together."""


@dataclass(frozen=True)
class Sample:
    """One timed tick: `adapters` candidates, `tokens` in all, `seconds`."""

    adapters: int
    tokens: int
    seconds: float


@dataclass(frozen=True)
class TickCosts:
    """c0 in seconds a tick, c1 in seconds a token, c2 in seconds an adapter."""

    c0: float
    c1: float
    c2: float

    def seconds(self, adapters: int, tokens: float) -> float:
        return self.c0 + self.c1 * tokens + self.c2 * adapters


@dataclass(frozen=True)
class PackPlan:
    """What was decided: `pack_size` at once; `rate` tokens a second, `alone` with one at a time."""

    pack_size: int
    rate: float
    alone: float
    costs: TickCosts
    sentence: str


def fit_costs(samples: Sequence[Sample]) -> TickCosts:
    """Least squares under c >= 0, each tick weighed by 1 / its seconds, so that relative errors count.

    Raises:
        ValueError: no samples.
    """
    if not samples:
        raise ValueError("there are no timed ticks")
    table = np.array([[1.0, sample.tokens, sample.adapters] for sample in samples])
    seconds = np.array([sample.seconds for sample in samples])
    found, _ = nnls(table / seconds[:, None], np.ones(len(samples)))
    return TickCosts(*(float(value) for value in found))


def plan_pack(
    costs: TickCosts,
    tokens: float,
    most: int,
    fits: Callable[[int], bool] = lambda _: True,
    least: int = LEAST,
) -> PackPlan:
    """The smallest pack that is as good as the fastest, and no smaller than `least`
    unless packing costs time.

    Args:
        costs: of this model on this machine.
        tokens: of one candidate's micro-batch.
        most: largest pack to consider (candidates, or the user's limit).
        fits: whether so many fit into memory.
        least: candidates that a search wants side by side, to prune them together.
    """

    def rate(adapters: int) -> float:
        return adapters * tokens / max(costs.seconds(adapters, adapters * tokens), 1e-12)

    sizes = [size for size in range(1, max(most, 1) + 1) if size == 1 or fits(size)]
    fastest = max(rate(size) for size in sizes)
    good = [size for size in sizes if rate(size) >= (1 - ENOUGH) * fastest]
    pack_size = next((size for size in good if size >= least), good[-1])
    alone = rate(1)
    sentence = (
        f"{pack_size} at once: about {rate(pack_size):,.0f} tokens/s against {alone:,.0f} one at a time;"
        f" a tick costs {costs.c0 * 1e3:.3g} ms + {costs.c1 * 1e6:.3g} us a token + {costs.c2 * 1e3:.3g}"
        " ms an adapter"
    )
    return PackPlan(pack_size, rate(pack_size), alone, costs, sentence)
