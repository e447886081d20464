"""An adapter's numbers, read strictly from a PEFT folder; the scale of a layer is known here alone.

    delta W = scale B A        scale = alpha / r, or alpha / sqrt(r) with rsLoRA (arXiv:2312.03732)

Shapes: R rank, D features in, O features out; of an embedding D counts tokens.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import pad

from loraloom.adapters.factors import Pair
from loraloom.errors import ModelError
from loraloom.lora.patterns import fault_of
from loraloom.lora.untrusted_adapter import (
    CONFIG,
    WEIGHTS,
    adapter_shapes,
    read_adapter_config,
    trained_tokens,
)

EVERY = slice(None)
PREFIX = "base_model.model."
LINEAR = ("lora_A.weight", "lora_B.weight")
EMBEDDING = ("lora_embedding_A", "lora_embedding_B")
MAGNITUDES = ("lora_magnitude_vector", "lora_magnitude_vector.weight")
TOKENS = ("token_adapter.trainable_tokens_delta", "trainable_tokens_delta")
PLAIN_STARTS = ("gaussian", "eva", "orthogonal")
"""Methods of initialisation that leave the base as it is; the others train over a changed one."""


@dataclass(frozen=True)
class Factor:
    """The update of one layer, in float32."""

    path: str
    a_RD: Tensor
    b_OR: Tensor
    scale: float
    magnitude_O: Tensor | None = None
    """DoRA's: the norm of each row of the sum."""
    is_embedding: bool = False

    @property
    def rank(self) -> int:
        return self.a_RD.shape[0]

    @property
    def pair(self) -> Pair:
        """A and B with the scale in B."""
        return self.a_RD, self.b_OR * self.scale

    def update(self, rows: slice = EVERY, *, transposed: bool = False) -> Tensor:
        """What is added to some rows of the weight [O, D], in PEFT's order of steps.

        Args:
            transposed: as [D, O].
        """
        product = (self.b_OR @ self.a_RD[:, rows]).T if transposed else self.b_OR[rows] @ self.a_RD
        return product.mul_(self.scale)


@dataclass(frozen=True)
class Form:
    """An adapter as numbers.

    Attributes:
        config: its adapter_config.json.
        factors: by path of the layer.
        whole: tensors that stand in place of the base's, by the model's own name: biases, heads,
            embeddings. In the type that they are saved in, for they may be the largest of all.
        tokens: numbers of the tokens that were trained one by one and their rows, by path of the
            embedding.
    """

    folder: Path
    config: Mapping[str, Any]
    factors: Mapping[str, Factor]
    whole: Mapping[str, Tensor]
    tokens: Mapping[str, tuple[tuple[int, ...], Tensor]]

    @property
    def ranks(self) -> tuple[int, ...]:
        """Every rank, each once, smallest first."""
        return tuple(sorted({factor.rank for factor in self.factors.values()}))

    @property
    def uses_dora(self) -> bool:
        return any(factor.magnitude_O is not None for factor in self.factors.values())

    @property
    def biases(self) -> tuple[str, ...]:
        """Biases that were trained beside frozen weights."""
        return tuple(
            name
            for name in self.whole
            if name.endswith(".bias") and f"{name.removesuffix('bias')}weight" not in self.whole
        )

    def beyond_factors(self) -> list[str]:
        """What it has beside A and B, in words; empty for plain LoRA."""
        biases = len(self.biases)
        modules = sorted({name.rpartition(".")[0] for name in self.whole if name not in self.biases})
        found = {
            "DoRA's magnitudes": self.uses_dora,
            f"{biases} trained biases": biases,
            f"modules trained whole: {', '.join(modules[:3])}": modules,
            "tokens trained one by one": self.tokens,
        }
        return [words for words, is_there in found.items() if is_there]


def read_form(folder: Path) -> Form:
    """The adapter of a PEFT folder.

    Raises:
        ModelError: what is in it cannot be read, is incomplete, or has a part that is not known here.
    """
    config = read_adapter_config(folder)
    _refuse_changed_base(folder, config)
    shapes = adapter_shapes(folder)
    stored = load_file(folder / WEIGHTS)
    parts: dict[str, dict[str, Tensor]] = {}
    whole: dict[str, Tensor] = {}
    tokens: dict[str, tuple[tuple[int, ...], Tensor]] = {}
    for key, tensor in stored.items():
        name = key.removeprefix(PREFIX).replace(".base_layer.", ".")
        if not key.startswith(PREFIX) or not tensor.is_floating_point() or not _is_finite(tensor):
            raise _strange(folder, key, shapes[key])
        path, part = _split(name)
        if not part:
            whole[name] = tensor
            continue
        value = tensor.to(torch.float32)
        if part in TOKENS:
            tokens[path] = (_token_numbers(folder, config, value), value)
        else:
            parts.setdefault(path, {})[part] = value
    if not parts and not whole and not tokens:
        raise ModelError(
            "there are no weights in it", where=str(folder / WEIGHTS), next="train it again"
        )
    scales = _Scales(folder, config, list(parts))
    factors = {path: _factor(folder, path, found, scales) for path, found in sorted(parts.items())}
    return Form(folder, config, factors, whole, tokens)


def normal(form: Form, rank: int | None = None) -> Form:
    """The same adapter as every server computes it: plain LoRA of one rank, alpha = r, no patterns.

    B takes the scale on, and smaller ranks are filled up with zeros.

    Args:
        rank: what to fill up to; the largest of its ranks when None.

    Raises:
        ModelError: DoRA, which is no sum; or a rank below one that it has.
    """
    if form.uses_dora:
        raise ModelError(
            f"the adapter in {form.folder} has magnitudes (DoRA), which plain LoRA has no place for",
            next="loraloom adapter merge",
        )
    wide = max([1, *form.ranks]) if rank is None else rank
    if wide < max(form.ranks, default=0):
        raise ModelError(
            f"rank {wide} is smaller than the adapter's {max(form.ranks)}",
            next=f"loraloom adapter resize --rank {wide}",
        )
    factors = {
        path: replace(
            factor,
            a_RD=pad(factor.a_RD, (0, 0, 0, wide - factor.rank)),
            b_OR=pad(factor.b_OR * factor.scale, (0, wide - factor.rank)),
            scale=1.0,
        )
        for path, factor in form.factors.items()
    }
    config = {
        **form.config,
        "r": wide,
        "lora_alpha": wide,
        "use_rslora": False,
        "rank_pattern": {},
        "alpha_pattern": {},
        "init_lora_weights": True,
    }
    return replace(form, config=config, factors=factors)


# -- parts of a folder -------------------------------------------------------------------------------


class _Scales:
    """Rank and alpha of every layer: PEFT takes the first pattern that ends the layer's path."""

    def __init__(self, folder: Path, config: Mapping[str, Any], paths: list[str]) -> None:
        self._ranks = config.get("rank_pattern") or {}
        self._alphas = config.get("alpha_pattern") or {}
        self._rank = config.get("r") or 8
        self._alpha = config.get("lora_alpha") or 8
        self._root = bool(config.get("use_rslora"))
        fault = fault_of([*self._ranks, *self._alphas], paths)
        if fault is not None:
            raise ModelError(
                "a pattern of the adapter cannot be matched with the names of its layers",
                where=str(folder / CONFIG),
                got=fault,
                next="name the layers themselves in rank_pattern and alpha_pattern",
            )

    def rank(self, path: str) -> int:
        return _matched(self._ranks, path, self._rank)

    def scale(self, path: str) -> float:
        rank = self.rank(path)
        return _matched(self._alphas, path, self._alpha) / (math.sqrt(rank) if self._root else rank)


def _matched(patterns: Mapping[str, Any], path: str, otherwise: Any) -> Any:
    found = (value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", path))
    return next(found, otherwise)


def _is_finite(tensor: Tensor) -> bool:
    return all(bool(piece.isfinite().all()) for piece in tensor.flatten().split(2**22))


def _split(name: str) -> tuple[str, str]:
    """Path of the layer and which part of its update a tensor is; "" where it is a tensor of its own."""
    for part in (*LINEAR, *EMBEDDING, *MAGNITUDES, *TOKENS):
        if name.endswith(f".{part}"):
            return name.removesuffix(f".{part}"), part
    return ("", name) if "lora_" in name else (name, "")


def _factor(folder: Path, path: str, found: Mapping[str, Tensor], scales: _Scales) -> Factor:
    """Raises ModelError where its halves do not belong to each other and to the config."""
    rank = scales.rank(path)
    is_embedding = EMBEDDING[0] in found
    first, second = EMBEDDING if is_embedding else LINEAR
    known = {first, second, *MAGNITUDES}
    strange = next((part for part in found if part not in known), None)
    if not path or strange is not None:
        raise _strange(folder, f"{path}.{strange or next(iter(found))}".lstrip("."), ())
    shapes = {part: tuple(tensor.shape) for part, tensor in found.items()}
    a, b = found.get(first), found.get(second)
    magnitude = next((found[name] for name in MAGNITUDES if name in found), None)
    if a is None or b is None or a.ndim != 2 or b.ndim != 2 or not a.shape[0] == b.shape[1] == rank:
        raise ModelError(
            f"the halves of `{path}` do not fit",
            where=str(folder / WEIGHTS),
            got=", ".join(f"{part} {'x'.join(map(str, shape))}" for part, shape in shapes.items()),
            need=f"lora_A of {rank} x in and lora_B of out x {rank}, as {CONFIG} says",
            next="copy the adapter again, config and weights from the same place",
        )
    if magnitude is not None and magnitude.numel() != b.shape[0]:
        raise _strange(folder, f"{path}.{MAGNITUDES[0]}", tuple(magnitude.shape))
    flat = None if magnitude is None else magnitude.flatten()
    return Factor(path, a, b, scales.scale(path), flat, is_embedding)


def _token_numbers(folder: Path, config: Mapping[str, Any], rows: Tensor) -> tuple[int, ...]:
    numbers = tuple(trained_tokens(config))
    if rows.ndim != 2 or rows.shape[0] != len(numbers):
        raise ModelError(
            f"{len(numbers)} tokens are named, and {rows.shape[0]} have rows",
            where=str(folder / CONFIG),
            need="`trainable_token_indices` of one embedding, a number for each row",
            next="save the adapter again with PEFT",
        )
    return numbers


def _refuse_changed_base(folder: Path, config: Mapping[str, Any]) -> None:
    """Raises ModelError where A and B were trained over a base that PEFT changes as it loads them."""
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower() not in PLAIN_STARTS:
        raise ModelError(
            f"`init_lora_weights: {start}` changes the base, and the adapter does not say how",
            where=str(folder / CONFIG),
            need="an adapter over the base as it is",
            next="save it with PEFT's path_initial_model_for_weight_conversion",
        )


def _strange(folder: Path, key: str, shape: tuple[int, ...]) -> ModelError:
    return ModelError(
        f"`{key}` is no tensor of a LoRA adapter, or has numbers that are none",
        where=str(folder / WEIGHTS),
        got=f"shape {shape}" if shape else None,
        need=f"finite numbers called {PREFIX}PATH.lora_A.weight and the like",
        next="save the adapter again with PEFT",
    )
