"""How adapters stand to each other before they are combined: common layers, cosine of their updates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import fmean
from typing import Any

import torch

from loraloom.adapters.form import Factor, Form

OPPOSED = -0.1
"""Mean cosine of two adapters' updates below which they take each other back."""
ALIKE = 0.5
"""Above which they have learnt much the same."""


@dataclass(frozen=True)
class Conflict:
    """Two adapters, by their places in the list.

    Attributes:
        common: layers that both change, `apart` those that only one does.
        cosines: mean cosine of the two updates by module, over the common layers.
    """

    first: int
    second: int
    common: int
    apart: int
    cosines: dict[str, float]

    @property
    def cosine(self) -> float | None:
        return fmean(self.cosines.values()) if self.cosines else None

    def advice(self) -> str:
        """What to do about it."""
        if self.cosine is None:
            return "they change different layers: cat keeps both whole"
        if self.cosine < OPPOSED:
            return "they take each other back: ties or knots, or serve them apart"
        if self.cosine > ALIKE:
            return "they have learnt much the same: soup, or weights that add up to 1"
        return "they hardly meet: cat keeps both whole, svd at a smaller rank"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "cosine": self.cosine, "advice": self.advice()}


def conflicts(forms: Sequence[Form]) -> list[Conflict]:
    """Every pair of adapters."""
    found: list[Conflict] = []
    for (i, one), (j, other) in combinations(enumerate(forms), 2):
        both = [path for path in one.factors if path in other.factors]
        by_module: dict[str, list[float]] = {}
        for path in both:
            value = cosine(one.factors[path], other.factors[path])
            by_module.setdefault(path.rpartition(".")[2], []).append(value)
        cosines = {name: fmean(values) for name, values in by_module.items()}
        apart = len(one.factors) + len(other.factors) - 2 * len(both)
        found.append(Conflict(i, j, len(both), apart, cosines))
    return found


def cosine(one: Factor, other: Factor) -> float:
    """Of two updates as vectors; 0 where one of them is nothing."""
    sizes = inner(one, one) * inner(other, other)
    return inner(one, other) / sizes**0.5 if sizes > 0 else 0.0


def inner(one: Factor, other: Factor) -> float:
    """The inner product of two updates in float64, without the dense matrices: <BA, B'A'> is the sum of
    (B^T B') * (A A'^T)."""
    a, b = one.a_RD.to(torch.float64), one.b_OR.to(torch.float64)
    a2, b2 = other.a_RD.to(torch.float64), other.b_OR.to(torch.float64)
    return float(((b.T @ b2) * (a @ a2.T)).sum()) * one.scale * other.scale
