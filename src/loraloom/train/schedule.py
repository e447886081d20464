"""Learning-rate schedules as pure functions of the step: nothing to save, nothing to restore."""

from __future__ import annotations

import math
from collections.abc import Callable


def linear(x: float) -> float:
    return 1 - x


def cosine(x: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * x))


def half_cycle_cosine(x: float) -> float:
    """A quarter wave, from 1 to 0: slow to leave the top, fast at the end."""
    return math.cos(0.5 * math.pi * x)


def constant(x: float) -> float:
    return 1.0


SHAPES: dict[str, Callable[[float], float]] = {
    "linear": linear,
    "cosine": cosine,
    "constant": constant,
    "half_cycle_cosine": half_cycle_cosine,
}
"""Share of the peak rate at share x of the way after warmup, x in [0, 1]."""


def warmup_steps(total: int, ratio: float) -> int:
    """Steps of warmup: the share, rounded up, and never the whole run."""
    return min(math.ceil(total * ratio), max(total - 1, 0))


def lr_at(step: int, total: int, peak: float, shape: str = "linear", warmup: int = 0) -> float:
    """Rate of optimiser step `step` (0-based) of `total`: linear up to `peak` over
    `warmup` steps, then the shape.

    The same numbers as transformers' `get_scheduler` gives for linear, cosine and constant.
    """
    if step < warmup:
        return peak * step / max(1, warmup)
    return peak * max(0.0, SHAPES[shape]((step - warmup) / max(1, total - warmup)))
