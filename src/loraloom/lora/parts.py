"""What a candidate may have in a layer beside A and B: a bias, a magnitude (DoRA), a
frozen term, a module of its own.

`packed_layer.PackedLayer` runs the frozen layer for all rows at once and then lets each candidate's
parts finish that candidate's rows. They are plain autograd over a few rows: readable, and rare enough
not to be fused. Their parameters are views of the candidate's arena, so that gradients arrive where the
optimiser looks for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loraloom.lora.frozen import FrozenWeight, frozen_product

Drop = Callable[[Tensor], Tensor]
"""The candidate's dropout in this layer and micro-step, on its rows of x [rows, .., D]."""


class Part(Protocol):
    """Finishes the rows of one candidate: x [rows, .., D] and the output so far [rows,
    .., O] -> output."""

    def __call__(self, x: Tensor, y: Tensor, drop: Drop) -> Tensor: ...


@dataclass
class Shift:
    """A trained bias, kept as its difference from the frozen one."""

    bias_O: nn.Parameter

    def __call__(self, x: Tensor, y: Tensor, drop: Drop) -> Tensor:
        return y + self.bias_O.to(y.dtype)


@dataclass
class Removed:
    """The product that PiSSA and OLoRA take out of the base: y - scale * B0 A0 x. It never changes."""

    a_RD: Tensor
    b_OR: Tensor
    scale: float

    def __call__(self, x: Tensor, y: Tensor, drop: Drop) -> Tensor:
        h = F.linear(x, self.a_RD.to(x.dtype))
        return y - self.scale * F.linear(h, self.b_OR.to(x.dtype))


@dataclass
class Dora:
    """Weight-decomposed LoRA (Liu et al. 2024, arXiv:2402.09353): y = m / ||W + s B A||
    * (W + s B A) x + bias.

    The norm, one for each output feature, is a constant in the backward pass (section 4.3 there). As in
    PEFT, dropout reaches all of x but leaves one plain W x: y = W x + bias + (c - 1) W drop(x) + c s B A
    drop(x), c = m / norm.

    Attributes:
        norm_O: ||W + s B A|| of each output feature, as `share_norms` last found it.
        shared: the candidate's drop(x) and W drop(x), as `share_products` left them for the next call.
    """

    weight: FrozenWeight
    frozen_bias_O: Tensor | None
    a_RD: nn.Parameter
    b_OR: nn.Parameter
    magnitude_O: nn.Parameter
    scale: float
    norm_O: Tensor = field(default_factory=lambda: torch.empty(0))
    shared: tuple[Tensor, Tensor] | None = None

    def __call__(self, x: Tensor, y: Tensor, drop: Drop) -> Tensor:
        a_RD, b_OR = self.a_RD.to(x.dtype), self.b_OR.to(x.dtype)
        factor_O = (self.magnitude_O / self.norm_O).to(x.dtype)
        if self.shared is None:
            dropped, plain = x, y if self.frozen_bias_O is None else y - self.frozen_bias_O
        else:
            (dropped, plain), self.shared = self.shared, None
        delta = F.linear(F.linear(dropped, a_RD), b_OR)
        return y + (factor_O - 1) * plain + factor_O * self.scale * delta


@torch.no_grad()
def share_norms(parts: Sequence[Dora]) -> None:
    """Find the norms of all candidates that have DoRA in a layer; its weight is asked for once.

    They are in the dtype of the adapters.
    """
    if not parts:
        return
    dtype, found = parts[0].a_RD.dtype, [list[Tensor]() for _ in parts]
    for rows, w_RD in parts[0].weight.blocks():
        w_RD = w_RD.to(dtype)
        for part, norms in zip(parts, found, strict=True):
            merged_RD = torch.addmm(w_RD, part.b_OR[rows], part.a_RD, alpha=part.scale)
            norms.append(torch.linalg.vector_norm(merged_RD, dim=1))
    for part, norms in zip(parts, found, strict=True):
        part.norm_O = torch.cat(norms)


def share_products(parts: Sequence[Dora], dropped: Sequence[Tensor]) -> None:
    """W drop(x) of all candidates that have DoRA with dropout in a layer; its weight is asked for once,
    and once more on the way back.

    Args:
        dropped: of each part drop(x) [rows, .., D].
    """
    if not parts:
        return
    plain = frozen_product(torch.cat(list(dropped)), parts[0].weight)
    for part, own, wide in zip(parts, dropped, plain.split([len(one) for one in dropped]), strict=True):
        part.shared = own, wide


class OwnDtype(nn.Module):
    """A module kept in float32 where the frozen one gives `base`, bfloat16 for example.
    Token numbers stay numbers."""

    def __init__(self, module: nn.Module, own: torch.dtype, base: torch.dtype) -> None:
        super().__init__()
        self.module, self.own, self.base = module, own, base

    def forward(self, x: Tensor, *args: object, **kwargs: object) -> Tensor:
        return self.module(x.to(self.own) if x.is_floating_point() else x, *args, **kwargs).to(self.base)
