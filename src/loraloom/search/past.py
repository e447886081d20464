"""What a sampler may know when it is asked for the next point."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from loraloom.search.space import Point


class Early(NamedTuple):
    """What is known of a candidate at the first rung: its point, its cost there (nan for none yet,
    infinite where it was not finite), and whether it is still on its way."""

    point: Point
    cost: float
    pending: bool


@dataclass(frozen=True)
class Past:
    """What a sampler may know: trials asked so far, results told to Optuna, whether a point would be
    new, and how each trial that was asked stands at the first rung, in the order of asking (for a search
    that starts wide)."""

    asked: int
    learned: int
    is_new: Callable[[Point], bool]
    early: Callable[[], Iterable[Early]] = lambda: ()
