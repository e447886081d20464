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

FORMATS = ("bf16", "f16", "Q8_0")
_DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16}
BLOCK = 32
"""Numbers of a row that Q8_0 gives one scale; rows that are no multiple of it are kept otherwise."""


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
    """Share of the update that is left when the merged weight is rounded, by format; Q8_0 is missing
    where the rows do not divide into its blocks."""


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
        None if files is None else _all_together(layers),
    )


def _layer(factor: Factor, files: BaseFiles | None) -> Layer:
    values_S = singular_values(factor.a_RD, factor.b_OR) * abs(factor.scale)
    norm = float(values_S.norm())
    plain = Layer(factor.path, factor.rank, factor.scale, effective_rank(values_S), norm)
    if files is None:
        return plain
    stored, transposed = files.layer(factor)
    weight, delta = stored.read().to(torch.float32), factor.update(transposed=transposed)
    if transposed and not factor.is_embedding:  # GGUF keeps a layer as out x in, and a token as a row
        weight, delta = weight.T.contiguous(), delta.T.contiguous()
    size = float(torch.linalg.vector_norm(weight))
    fits = [name for name in FORMATS if name in _DTYPES or weight.shape[1] % BLOCK == 0]
    kept = {name: kept_share(weight, delta, name) for name in fits}
    return replace(plain, relative_norm=norm / size if size else None, kept=kept)


def kept_share(weight: Tensor, delta: Tensor, format: str) -> float:
    """Share of an update that rounding to a format leaves of it, from 0 to 1."""
    change = rounded(weight + delta, format) - rounded(weight, format)
    size = torch.linalg.vector_norm(delta)
    lost = torch.linalg.vector_norm(change - delta)
    return 1.0 if not size > 0 else max(0.0, 1.0 - float(lost / size))


def rounded(weight: Tensor, format: str) -> Tensor:
    """A weight [O, D] as a format of `FORMATS` holds it, in float32.

    Q8_0 of llama.cpp: each 32 numbers of a row are whole numbers from -127 to 127 times one scale, which
    is kept in float16.
    """
    if format in _DTYPES:
        return weight.to(_DTYPES[format]).to(torch.float32)
    blocks = weight.reshape(-1, BLOCK)
    scale = blocks.abs().amax(1, keepdim=True) / 127
    codes = torch.where(scale > 0, blocks / scale, 0.0).round()
    return (codes * scale.to(torch.float16).to(torch.float32)).view_as(weight)


def _all_together(layers: tuple[Layer, ...]) -> dict[str, float]:
    known = {name for layer in layers for name in layer.kept or ()}
    return {name: _together(layers, name) for name in FORMATS if name in known}


def _together(layers: tuple[Layer, ...], name: str) -> float:
    pairs = [(layer.norm**2, layer.kept[name]) for layer in layers if layer.kept and name in layer.kept]
    total = sum(weight for weight, _ in pairs)
    return sum(weight * share for weight, share in pairs) / total if total else 1.0
