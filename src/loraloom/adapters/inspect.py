"""What an adapter is: its layers, its update beside the base's weights, and what rounding keeps of it.

The kept share of an update is 1 - |change - update| / |update| (Frobenius), where the change is what two
rounded weights differ by: rounded(W + update) - rounded(W). At 0 the rounding is as large as the update.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from loraloom.adapters.base_files import BaseFiles
from loraloom.adapters.factors import effective_rank, singular_values
from loraloom.adapters.form import Factor, read_form
from loraloom.adapters.servers import refusals

FORMATS = {"bf16": torch.bfloat16, "f16": torch.float16}


@dataclass(frozen=True)
class Layer:
    """The update of one layer; what needs the base is None without it."""

    path: str
    rank: int
    scale: float
    effective_rank: float
    norm: float
    """|scale B A|, Frobenius."""
    relative_norm: float | None = None
    """|scale B A| / |W|."""
    kept: Mapping[str, float] | None = None
    """Share of the update that is left when the merged weight is rounded, by format."""


@dataclass(frozen=True)
class Inspection:
    """An adapter, looked at."""

    folder: str
    trained_on: str | None
    layers: tuple[Layer, ...]
    beyond_factors: tuple[str, ...]
    refused: Mapping[str, tuple[str, ...]]
    kept: Mapping[str, float] | None
    """Of all layers together, each weighed by the square of its update."""

    def to_json(self) -> dict[str, Any]:
        """The document of `adapter inspect --json`."""
        return asdict(self)

    def by_module(self) -> dict[str, list[Layer]]:
        """Layers of one last name: all `q_proj`."""
        found: dict[str, list[Layer]] = {}
        for layer in self.layers:
            found.setdefault(layer.path.rpartition(".")[2], []).append(layer)
        return found


def inspect_adapter(folder: Path, base: Path | None = None) -> Inspection:
    """Look at the adapter in `folder`, beside the weights of its base where they are there.

    Raises:
        ModelError: either cannot be read, or they do not fit each other.
    """
    form = read_form(folder)
    files = None if base is None else BaseFiles(base, form)
    layers = tuple(_layer(factor, files) for factor in form.factors.values())
    return Inspection(
        str(folder),
        form.config.get("base_model_name_or_path"),
        layers,
        tuple(form.beyond_factors()),
        refusals(form),
        None if files is None else {name: _together(layers, name) for name in FORMATS},
    )


def _layer(factor: Factor, files: BaseFiles | None) -> Layer:
    values_S = singular_values(factor.a_RD, factor.b_OR) * abs(factor.scale)
    norm = float(values_S.norm())
    plain = Layer(factor.path, factor.rank, factor.scale, effective_rank(values_S), norm)
    if files is None:
        return plain
    stored, transposed = files.layer(factor)
    weight, delta = stored.read().to(torch.float32), factor.update(transposed=transposed)
    size = float(torch.linalg.vector_norm(weight))
    kept = {name: kept_share(weight, delta, dtype) for name, dtype in FORMATS.items()}
    return replace(plain, relative_norm=norm / size if size else None, kept=kept)


def kept_share(weight: Tensor, delta: Tensor, dtype: torch.dtype) -> float:
    """Share of an update that rounding to `dtype` leaves of it, from 0 to 1."""
    change = (weight + delta).to(dtype).to(torch.float32) - weight.to(dtype).to(torch.float32)
    size = torch.linalg.vector_norm(delta)
    lost = torch.linalg.vector_norm(change - delta)
    return 1.0 if not size > 0 else max(0.0, 1.0 - float(lost / size))


def _together(layers: tuple[Layer, ...], name: str) -> float:
    weights = [layer.norm**2 for layer in layers]
    shares = [(layer.kept or {}).get(name, 1.0) for layer in layers]
    total = sum(weights)
    if not total:
        return 1.0
    return sum(weight * share for weight, share in zip(weights, shares, strict=True)) / total
