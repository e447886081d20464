"""How adapters stand to each other before they are combined, module by module, and what to do.

Two updates D and E of one layer can point the same or the opposite way (their cosine), and they can read
and write the same directions (their interference): of what E does, the share of its energy between the
directions that D reads and those that it writes,

    |P_out E P_in|^2 / |E|^2         P: projections on the columns of D's B and the rows of D's A

Unrelated updates of rank r in a layer of D inputs and O outputs have r^2 / (D O) of it. What one of them
does to the other's inputs is in neither number: see benchmarks/ship/skills.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from loraloom.adapters.form import Factor, Form

OPPOSED = -0.1
"""Mean cosine of two adapters' updates below which they take each other back."""
ALIKE = 0.5
"""Above which they have learnt much the same."""
CROWDED = 0.25
"""Mean interference above which they change the same directions, each in its own way."""
UNEVEN = 3.0
"""Ratio of two updates' sizes from which the larger one decides what the sum does."""


@dataclass(frozen=True)
class Module:
    """All layers of one last name that both adapters change, `q_proj` for instance.

    Attributes:
        cosine: mean over the layers; so are the others.
        interference: the larger one of the two ways round.
        sizes: |update| of the first over that of the second.
    """

    layers: int
    cosine: float
    interference: float
    sizes: float


@dataclass(frozen=True)
class Conflict:
    """Two adapters, by their places in the list.

    Attributes:
        common: layers that both change, `apart` those that only one does.
        modules: by the last name of the common layers.
    """

    first: int
    second: int
    common: int
    apart: int
    modules: dict[str, Module]

    @property
    def cosine(self) -> float | None:
        return self._mean("cosine")

    @property
    def interference(self) -> float | None:
        return self._mean("interference")

    @property
    def sizes(self) -> float | None:
        return self._mean("sizes")

    def _mean(self, name: str) -> float | None:
        values = [getattr(one, name) for one in self.modules.values() for _ in range(one.layers)]
        return fmean(values) if values else None

    def advice(self) -> str:
        """What to do about it."""
        if self.cosine is None or self.interference is None or self.sizes is None:
            return "they change different layers: cat keeps both whole"
        if self.cosine < OPPOSED:
            found = "they take each other back: ties or knots, or serve them apart"
        elif self.cosine > ALIKE:
            found = "they have learnt much the same: soup, or weights that add up to 1"
        elif self.interference > CROWDED:
            found = "they change the same directions otherwise: knots, or cat with smaller weights"
        else:
            found = (
                "their updates hardly meet: cat adds them as they are; regmean, with rows of each task,"
                " also keeps each off the other's inputs"
            )
        if not 1 / UNEVEN < self.sizes < UNEVEN:
            larger = "first" if self.sizes > 1 else "second"
            found += f"; the {larger} is much the larger one: give it less weight"
        return found

    def worst(self) -> str | None:
        """The module where they oppose each other most, if in one of them they do."""
        found = min(self.modules, key=lambda name: self.modules[name].cosine, default=None)
        return found if found is not None and self.modules[found].cosine < OPPOSED else None

    def to_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "cosine": self.cosine,
            "interference": self.interference,
            "sizes": self.sizes,
            "advice": self.advice(),
        }


def conflicts(forms: Sequence[Form]) -> list[Conflict]:
    """Every pair of adapters."""
    found: list[Conflict] = []
    for (i, one), (j, other) in combinations(enumerate(forms), 2):
        both = [path for path in one.factors if path in other.factors]
        by_module: dict[str, list[Module]] = {}
        for path in both:
            beside = _beside(one.factors[path], other.factors[path])
            by_module.setdefault(path.rpartition(".")[2], []).append(beside)
        modules = {name: _mean(layers) for name, layers in by_module.items()}
        apart = len(one.factors) + len(other.factors) - 2 * len(both)
        found.append(Conflict(i, j, len(both), apart, modules))
    return found


def _beside(one: Factor, other: Factor) -> Module:
    sizes = [inner(factor, factor) ** 0.5 for factor in (one, other)]
    ratio = sizes[0] / sizes[1] if min(sizes) > 0 else 1.0
    crossed = max(interference(one, other), interference(other, one))
    return Module(1, cosine(one, other), crossed, ratio)


def _mean(layers: Sequence[Module]) -> Module:
    names = ("cosine", "interference", "sizes")
    return Module(len(layers), *(fmean(getattr(one, name) for one in layers) for name in names))


def interference(one: Factor, other: Factor) -> float:
    """Share of the second one's energy within the directions that the first reads and writes; 0 where
    one of them is nothing."""
    if not one.a_RD.any() or not one.b_OR.any():
        return 0.0
    a, b = other.a_RD.to(torch.float64), other.b_OR.to(torch.float64)
    # |Q_out^T B A Q_in|, of R x R: neither projection is ever built
    within = (_basis(one.b_OR).T @ b) @ (a @ _basis(one.a_RD.T))
    whole = float(((b.T @ b) * (a @ a.T)).sum())
    return float(within.square().sum()) / whole if whole > 0 else 0.0


def _basis(columns: Tensor) -> Tensor:
    """Orthonormal columns that span these, those alone that are more than rounding."""
    u, values_S, _ = torch.linalg.svd(columns.to(torch.float64), full_matrices=False)
    return u[:, values_S > values_S[0] * 1e-6]


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
