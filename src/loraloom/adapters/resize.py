"""An adapter of another rank: the best one of that rank, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from loraloom.adapters.factors import rank_for_energy, singular_values, truncated
from loraloom.adapters.form import Form
from loraloom.errors import ModelError, RequestError


@dataclass(frozen=True)
class Resized:
    """The new adapter.

    Attributes:
        rank: of every layer.
        energy: share of all squared singular values that is kept.
    """

    form: Form
    rank: int
    energy: float

    def to_json(self) -> dict[str, Any]:
        """The document of `adapter resize --json`, without the folder."""
        return {"rank": self.rank, "energy_kept": self.energy, "layers": len(self.form.factors)}


def resized(form: Form, rank: int | None = None, energy: float | None = None) -> Resized:
    """The adapter cut, or filled up, to one rank.

    Args:
        rank: the new rank.
        energy: instead of it, the share of each layer's squared singular values that is kept at least:
            the smallest rank that does so in all layers.

    Raises:
        RequestError: both or none of the two, or values out of range; no layers, or DoRA, whose
            magnitudes belong to the product as it was trained.
    """
    if (rank is None) == (energy is None):
        raise RequestError(
            "give either a rank or a share of the energy", next="--rank 8, or --energy 0.99"
        )
    if form.uses_dora or not form.factors:
        raise ModelError(
            f"the adapter in {form.folder} has {'magnitudes (DoRA)' if form.uses_dora else 'no layers'}",
            need="plain LoRA",
            next="merge it: loraloom adapter merge",
        )
    values = {path: singular_values(f.a_RD, f.b_OR) * abs(f.scale) for path, f in form.factors.items()}
    if energy is not None:
        if not 0 < energy <= 1:
            raise RequestError(
                f"--energy is {energy:g}", need="above 0, at most 1", next="--energy 0.99"
            )
        rank = max(rank_for_energy(values_S, energy) for values_S in values.values())
    if rank is None or rank < 1:
        raise RequestError(f"--rank is {rank}", need="at least 1", next="--rank 8")
    factors = {}
    for path, factor in form.factors.items():
        a, b = truncated(factor.a_RD, factor.b_OR * factor.scale, rank)
        factors[path] = replace(factor, a_RD=a, b_OR=b, scale=1.0)
    kept = sum(float(values_S[:rank].square().sum()) for values_S in values.values())
    every = float(torch.cat(list(values.values())).square().sum())
    return Resized(replace(form, factors=factors), rank, kept / every if every else 1.0)
