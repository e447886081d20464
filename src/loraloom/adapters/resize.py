"""An adapter of another rank: the best one of that rank, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from loraloom.adapters.factors import (
    Pair,
    rank_for_energy,
    rank_for_ratio,
    singular_values,
    truncated,
)
from loraloom.adapters.form import Form
from loraloom.errors import ModelError, RequestError


@dataclass(frozen=True)
class Resized:
    """The new adapter.

    Attributes:
        rank: of every layer.
        energy: share of all squared singular values that is kept.
        asked: by layer the update that was to be kept.
    """

    form: Form
    rank: int
    energy: float
    asked: Mapping[str, Sequence[Pair]]

    @property
    def least(self) -> float:
        """The least possible error of this rank, as in `MadeProof`."""
        return max(0.0, 1 - self.energy) ** 0.5

    def to_json(self) -> dict[str, Any]:
        """The document of `adapter resize --json`, without the folder."""
        return {"rank": self.rank, "energy_kept": self.energy, "layers": len(self.form.factors)}


def resized(
    form: Form, rank: int | None = None, energy: float | None = None, ratio: float | None = None
) -> Resized:
    """The adapter cut, or filled up, to one rank.

    Args:
        rank: the new rank.
        energy: instead of it, the share of each layer's squared singular values that is kept at least:
            the smallest rank that does so in all layers.
        ratio: instead of both, what is kept of each layer is every singular value of at least this share
            of the largest: the smallest rank that does so in all layers.

    Raises:
        RequestError: not one of the three, or values out of range; no layers, or DoRA, whose
            magnitudes belong to the product as it was trained.
    """
    if [rank, energy, ratio].count(None) != 2:
        raise RequestError(
            "give one of a rank, a share of the energy, and a ratio of singular values",
            next="--rank 8, --energy 0.99 or --ratio 0.05",
        )
    if form.uses_dora or not form.factors:
        raise ModelError(
            f"the adapter in {form.folder} has {'magnitudes (DoRA)' if form.uses_dora else 'no layers'}",
            need="plain LoRA",
            next="merge it: loraloom adapter merge",
        )
    values = {path: singular_values(f.a_RD, f.b_OR) * abs(f.scale) for path, f in form.factors.items()}
    rank = _rank(list(values.values()), rank, energy, ratio)
    factors = {}
    for path, factor in form.factors.items():
        a, b = truncated(*factor.pair, rank)
        factors[path] = replace(factor, a_RD=a, b_OR=b, scale=1.0)
    kept = sum(float(values_S[:rank].square().sum()) for values_S in values.values())
    every = float(torch.cat(list(values.values())).square().sum())
    asked = {path: [factor.pair] for path, factor in form.factors.items()}
    return Resized(replace(form, factors=factors), rank, kept / every if every else 1.0, asked)


def _rank(values: Sequence[Tensor], rank: int | None, energy: float | None, ratio: float | None) -> int:
    """Raises RequestError for a value out of range."""
    for name, share, example in (("energy", energy, 0.99), ("ratio", ratio, 0.05)):
        if share is not None and not 0 < share <= 1:
            raise RequestError(
                f"--{name} is {share:g}", need="above 0, at most 1", next=f"--{name} {example}"
            )
    if energy is not None:
        return max(rank_for_energy(values_S, energy) for values_S in values)
    if ratio is not None:
        return max(rank_for_ratio(values_S, ratio) for values_S in values)
    if rank is None or rank < 1:
        raise RequestError(f"--rank is {rank}", need="at least 1", next="--rank 8")
    return rank
