"""The fast path of many adapters on one frozen layer: one autograd function, gradients written in place.

What is kept for the backward pass: x by reference, h = drop(x) A^T for each adapter, and a seed for each dropout
mask. Everything else is recomputed. Gradients of A and B go straight into the adapter's arena: no per-tensor
gradient is allocated and autograd does not see the adapters' weights at all. `layer.LoRALinear` is the
specification; the tests hold the two together in float64.

For one adapter with scale s and keep mask m / (1 - p):
    h = (x*m) A^T            y += s h B^T
    g = s gy B               dB += s gy^T h      dA += g^T (x*m)      dx += m * (g A)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Segment:
    """The rows of one adapter in a micro-batch.

    Attributes:
        slot: whose rows these are.
        start, stop: rows [start, stop) of the batch.
        seed: seeds this micro-step's dropout masks (each layer adds its own number).
    """

    slot: str
    start: int
    stop: int
    seed: int = 0


@dataclass(frozen=True)
class Routing:
    """Which rows belong to which adapter, for one forward pass and its backward pass.

    An empty `segments` is the bare base model. `training` switches dropout on.
    """

    segments: tuple[Segment, ...] = ()
    training: bool = False


BASE = Routing()


@dataclass
class LayerWeights:
    """One adapter's part in one layer. `a` and `b` are views of its arena, or copies in the base's dtype."""

    a_RD: Tensor
    b_OR: Tensor
    grad_a_RD: Tensor
    grad_b_OR: Tensor
    scale: float
    dropout: float
    bias_O: Tensor | None = None
    grad_bias_O: Tensor | None = None


@dataclass(frozen=True)
class Frozen:
    """How to run a frozen dense layer: `forward` [N, D] -> new [N, O]; `backward` [N, O] -> new [N, D]."""

    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor], Tensor]


def keep_mask(rows: int, tokens: int, features: int, p: float, seed: int, like: Tensor) -> Tensor:
    """The scaled dropout mask of one adapter in one layer and micro-step: 1 / (1 - p) or 0, [rows * tokens, features].

    A pure function of (seed, p, rows, features) and of a token's place in its row: drawn token by token over all rows,
    so that how far neighbours made the rows be padded changes nothing before the padding. Replayed in backward and
    under checkpointing. Drawn as 16-bit integers, four a 64-bit draw: p is rounded to a multiple of 2^-16 and the scale
    uses the rounded value, so that the mean stays exact.
    """
    threshold = round(p * 65536)
    count = rows * tokens * features
    generator = torch.Generator().manual_seed(seed & 0x7FFF_FFFF_FFFF_FFFF)
    draws = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None, generator=generator)
    kept = draws.view(torch.int16)[:count] >= threshold - 32768
    mask = kept.to(like.device, like.dtype).mul_(65536 / (65536 - threshold))
    return mask.view(tokens, rows, features).transpose(0, 1).reshape(-1, features)


def _accumulate(target: Tensor, left: Tensor, right: Tensor, alpha: float = 1.0) -> None:
    """target += alpha * left @ right, in place when the dtypes allow it."""
    if target.dtype == left.dtype:
        target.addmm_(left, right, alpha=alpha)
    else:
        target.add_(left @ right, alpha=alpha)


class PackedLinear(torch.autograd.Function):
    """y = frozen(x) + each segment's own delta.

    Inputs: x [B, T, D] (or [B, D]); `y_base` is the frozen layer's output when it can only be run by itself
    (a quantised layer), else None and `frozen` runs it; `anchor` is a scalar that requires a gradient, so that the
    function is recorded although no weight is an autograd input. Writes gradients into `LayerWeights.grad_*`.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y_base: Tensor | None, anchor: Tensor, frozen: Frozen | None, routing: Routing,
        weights: dict[str, LayerWeights], number: int,
    ) -> Tensor:  # fmt: skip
        flat_ND = x.reshape(-1, x.shape[-1])
        if frozen is not None:
            y_NO = frozen.forward(flat_ND)
        else:
            assert y_base is not None
            y_NO = y_base.reshape(-1, y_base.shape[-1]).clone()
        per_row = flat_ND.shape[0] // x.shape[0]
        hidden: list[Tensor | None] = []
        for segment in routing.segments:
            weight = weights.get(segment.slot)
            if weight is None:
                hidden.append(None)
                continue
            rows = slice(segment.start * per_row, segment.stop * per_row)
            mask = _mask(flat_ND[rows], weight, routing, segment, number)
            x_rows = flat_ND[rows] if mask is None else flat_ND[rows] * mask
            h_NR = x_rows @ weight.a_RD.T
            y_NO[rows].addmm_(h_NR, weight.b_OR.T, alpha=weight.scale)
            if weight.bias_O is not None:
                y_NO[rows].add_(weight.bias_O)
            hidden.append(h_NR)
        ctx.save_for_backward(x, *[h for h in hidden if h is not None])
        ctx.layer = (frozen, routing, weights, number, y_base is not None)
        return y_NO.view(*x.shape[:-1], y_NO.shape[-1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        frozen, routing, weights, number, has_base = ctx.layer
        x, *saved = ctx.saved_tensors
        gy = grads[0]
        gy_NO = gy.reshape(-1, gy.shape[-1])
        flat_ND = x.reshape(-1, x.shape[-1])
        per_row = flat_ND.shape[0] // x.shape[0]
        gx_ND = None
        if ctx.needs_input_grad[0]:
            gx_ND = frozen.backward(gy_NO) if frozen is not None else torch.zeros_like(flat_ND)
        remaining = iter(saved)
        for segment in routing.segments:
            weight = weights.get(segment.slot)
            if weight is None:
                continue
            h_NR = next(remaining)
            rows = slice(segment.start * per_row, segment.stop * per_row)
            gy_rows = gy_NO[rows]
            mask = _mask(flat_ND[rows], weight, routing, segment, number)
            x_rows = flat_ND[rows] if mask is None else flat_ND[rows] * mask
            g_NR = (gy_rows @ weight.b_OR).mul_(weight.scale)
            _accumulate(weight.grad_b_OR, gy_rows.T, h_NR, weight.scale)
            _accumulate(weight.grad_a_RD, g_NR.T, x_rows)
            if weight.grad_bias_O is not None:
                weight.grad_bias_O.add_(gy_rows.sum(0))
            if gx_ND is not None:
                if mask is None:
                    gx_ND[rows].addmm_(g_NR, weight.a_RD)
                else:
                    gx_ND[rows].addcmul_(g_NR @ weight.a_RD, mask)
        gx = None if gx_ND is None else gx_ND.view(x.shape)
        return gx, gy if has_base else None, None, None, None, None, None


def _mask(x_ND: Tensor, weight: LayerWeights, routing: Routing, segment: Segment, number: int) -> Tensor | None:
    if not routing.training or weight.dropout <= 0:
        return None
    rows = segment.stop - segment.start
    seed = (segment.seed * 1_000_003 + number) * 0x9E37_79B9_7F4A_7C15
    return keep_mask(rows, x_ND.shape[0] // rows, x_ND.shape[1], weight.dropout, seed, x_ND)
