"""What a candidate may have in a layer beside A and B: a bias, a magnitude (DoRA), a
frozen term, a module of its own.

`packed_layer.PackedLayer` runs the frozen layer for all rows at once and then lets each candidate's
parts finish that candidate's rows. They are plain autograd over a few rows: readable, and rare enough
not to be fused. Their parameters are views of the candidate's arena, so that gradients arrive where the
optimiser looks for them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
    """

    weight_OD: Callable[[], Tensor]
    frozen_bias_O: Tensor | None
    a_RD: nn.Parameter
    b_OR: nn.Parameter
    magnitude_O: nn.Parameter
    scale: float

    def __call__(self, x: Tensor, y: Tensor, drop: Drop) -> Tensor:
        weight_OD = self.weight_OD()
        a_RD, b_OR = self.a_RD.to(x.dtype), self.b_OR.to(x.dtype)
        factor_O = (self.magnitude_O / self.norm(weight_OD)).to(x.dtype)
        dropped = drop(x)
        unbiased = y if self.frozen_bias_O is None else y - self.frozen_bias_O
        plain = unbiased if dropped is x else F.linear(dropped, weight_OD)
        delta = F.linear(F.linear(dropped, a_RD), b_OR)
        return y + (factor_O - 1) * plain + factor_O * self.scale * delta

    @torch.no_grad()
    def norm(self, weight_OD: Tensor) -> Tensor:
        """||W + s B A|| of each output feature, [O], in the dtype of the adapter."""
        a_RD, b_OR = self.a_RD, self.b_OR
        return torch.linalg.vector_norm(
            torch.addmm(weight_OD.to(a_RD.dtype), b_OR, a_RD, alpha=self.scale), dim=1
        )


class OwnDtype(nn.Module):
    """A module kept in float32 where the frozen one gives `base`, bfloat16 for example.
    Token numbers stay numbers."""

    def __init__(self, module: nn.Module, own: torch.dtype, base: torch.dtype) -> None:
        super().__init__()
        self.module, self.own, self.base = module, own, base

    def forward(self, x: Tensor, *args: object, **kwargs: object) -> Tensor:
        return self.module(x.to(self.own) if x.is_floating_point() else x, *args, **kwargs).to(self.base)
