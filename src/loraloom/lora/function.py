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
from functools import cached_property
from typing import Any

import numpy as np
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

    @cached_property
    def even(self) -> bool:
        """Whether the segments follow one another from row 0 with equally many rows: then they can be stacked."""
        size = self.segments[0].stop if self.segments else 0
        return all(s.start == k * size and s.stop == (k + 1) * size for k, s in enumerate(self.segments))


BASE = Routing()


@dataclass
class LayerWeights:
    """One adapter's part in one layer. `a` and `b` are views of its arena, or of its copy in the base's dtype."""

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
    under checkpointing. Drawn as 16-bit integers: p is rounded to a multiple of 2^-16 and the scale uses the rounded
    value, so that the mean stays exact. NumPy's SFC64 draws many times faster than torch's CPU generator.
    """
    threshold = round(p * 65536)
    count = rows * tokens * features
    draws = np.random.SFC64(seed).random_raw(-(-count // 4)).view(np.int16)[:count]
    kept = (draws >= threshold - 32768).astype(np.float64 if like.dtype == torch.float64 else np.float32)
    mask = torch.from_numpy(kept).mul_(65536 / (65536 - threshold)).to(like.device, like.dtype)
    return mask.view(tokens, rows, features).transpose(0, 1).reshape(-1, features)


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
        lanes = _lanes(routing, weights, number, flat_ND.shape[0] // x.shape[0])
        saved = [lane.forward(flat_ND, y_NO) for lane in lanes]
        ctx.save_for_backward(x, *saved)
        ctx.layer = (frozen, lanes, y_base is not None)
        return y_NO.view(*x.shape[:-1], y_NO.shape[-1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        frozen, lanes, has_base = ctx.layer
        x, *saved = ctx.saved_tensors
        gy = grads[0]
        gy_NO = gy.reshape(-1, gy.shape[-1])
        flat_ND = x.reshape(-1, x.shape[-1])
        gx_ND = None
        if ctx.needs_input_grad[0]:
            gx_ND = frozen.backward(gy_NO) if frozen is not None else torch.zeros_like(flat_ND)
        for lane, h in zip(lanes, saved, strict=True):
            lane.backward(flat_ND, gy_NO, gx_ND, h)
        gx = None if gx_ND is None else gx_ND.view(x.shape)
        return gx, gy if has_base else None, None, None, None, None, None


def _lanes(routing: Routing, weights: dict[str, LayerWeights], number: int, tokens: int) -> list[Lane | StackedLanes]:
    """The segments that have an adapter in this layer: stacked if they are all alike in shape, else one by one."""
    active = [segment for segment in routing.segments if segment.slot in weights]
    lanes = [
        Lane(
            weights[segment.slot],
            slice(segment.start * tokens, segment.stop * tokens),
            segment.stop - segment.start,
            layer_seed(segment.seed, number) if routing.training and weights[segment.slot].dropout > 0 else None,
        )
        for segment in active
    ]
    if len(lanes) > 1 and len(active) == len(routing.segments) and routing.even:
        return [StackedLanes(lanes)]
    return list(lanes)


def layer_seed(seed: int, number: int) -> int:
    """The seed of one layer's mask in one micro-step."""
    return ((seed * 1_000_003 + number) * 0x9E37_79B9_7F4A_7C15) & 0x7FFF_FFFF_FFFF_FFFF


@dataclass(frozen=True)
class Lane:
    """One adapter in one layer for one pass. `place` is its part of the flat tokens; `seed` is of its dropout, if any."""

    weight: LayerWeights
    place: slice
    rows: int
    seed: int | None

    def mask(self, x_ND: Tensor) -> Tensor | None:
        """The dropout mask of this lane's part of x, or None."""
        if self.seed is None:
            return None
        return keep_mask(self.rows, x_ND.shape[0] // self.rows, x_ND.shape[1], self.weight.dropout, self.seed, x_ND)

    def forward(self, flat_ND: Tensor, y_NO: Tensor) -> Tensor:
        """Add this adapter's delta to y; gives h."""
        weight, x_rows, y_rows = self.weight, flat_ND[self.place], y_NO[self.place]
        mask = self.mask(x_rows)
        h_NR = (x_rows if mask is None else x_rows * mask) @ weight.a_RD.T
        y_rows.addmm_(h_NR, weight.b_OR.T, alpha=weight.scale)
        if weight.bias_O is not None:
            y_rows.add_(weight.bias_O)
        return h_NR

    def backward(self, flat_ND: Tensor, gy_NO: Tensor, gx_ND: Tensor | None, h_NR: Tensor) -> None:
        """Add this adapter's gradients to its arena, and its part of the input's gradient to gx."""
        weight, x_rows, gy_rows = self.weight, flat_ND[self.place], gy_NO[self.place]
        mask = self.mask(x_rows)
        g_NR = (gy_rows @ weight.b_OR).mul_(weight.scale)
        _accumulate(weight.grad_b_OR, gy_rows.T, h_NR, weight.scale)
        _accumulate(weight.grad_a_RD, g_NR.T, x_rows if mask is None else x_rows * mask)
        if weight.grad_bias_O is not None:
            weight.grad_bias_O.add_(gy_rows.sum(0))
        if gx_ND is None:
            return
        if mask is None:
            gx_ND[self.place].addmm_(g_NR, weight.a_RD)
        else:
            gx_ND[self.place].addcmul_(g_NR @ weight.a_RD, mask)


class StackedLanes:
    """Lanes of equally many tokens, in the order of the batch, as batched products: K adapters, N tokens each.

    Smaller ranks are padded with zeros, which is exact: a zero row of A gives a zero column of h, meets a zero column
    of B, and its gradient is dropped.
    """

    def __init__(self, lanes: list[Lane]) -> None:
        self.lanes = lanes
        self.weights = [lane.weight for lane in lanes]
        self.biases = [(n, w.bias_O, w.grad_bias_O) for n, w in enumerate(self.weights) if w.bias_O is not None]
        self.a_KRD = _stack([weight.a_RD for weight in self.weights])
        self.scales_K11 = self.a_KRD.new_tensor([weight.scale for weight in self.weights])[:, None, None]
        self.sb_KRO = _stack([weight.b_OR.T for weight in self.weights]).mul_(self.scales_K11)

    def masked(self, flat_ND: Tensor) -> tuple[Tensor, Tensor | None]:
        """x as [K, N, D], dropped where a lane drops, and the mask (None when none does)."""
        x_KND = flat_ND.view(len(self.lanes), -1, flat_ND.shape[1])
        if all(lane.seed is None for lane in self.lanes):
            return x_KND, None
        masks = [lane.mask(x_ND) for lane, x_ND in zip(self.lanes, x_KND, strict=True)]
        mask_KND = torch.stack([torch.ones_like(x_KND[0]) if mask is None else mask for mask in masks])
        return x_KND * mask_KND, mask_KND

    def forward(self, flat_ND: Tensor, y_NO: Tensor) -> Tensor:
        x_KND, _ = self.masked(flat_ND)
        h_KNR = torch.bmm(x_KND, self.a_KRD.mT)
        y_KNO = y_NO.view(len(self.lanes), -1, y_NO.shape[1])
        y_KNO.baddbmm_(h_KNR, self.sb_KRO)
        for number, bias_O, _ in self.biases:
            y_KNO[number].add_(bias_O)
        return h_KNR

    def backward(self, flat_ND: Tensor, gy_NO: Tensor, gx_ND: Tensor | None, h_KNR: Tensor) -> None:
        x_KND, mask_KND = self.masked(flat_ND)
        gy_KNO = gy_NO.reshape(len(self.lanes), -1, gy_NO.shape[1])
        g_KNR = torch.bmm(gy_KNO, self.sb_KRO.mT)
        _add_each([weight.grad_a_RD for weight in self.weights], torch.bmm(g_KNR.mT, x_KND))
        _add_each([weight.grad_b_OR.T for weight in self.weights], torch.bmm((h_KNR * self.scales_K11).mT, gy_KNO))
        for number, _, grad_bias_O in self.biases:
            if grad_bias_O is not None:
                grad_bias_O.add_(gy_KNO[number].sum(0))
        if gx_ND is None:
            return
        gx_KND = gx_ND.view(x_KND.shape)
        if mask_KND is None:
            gx_KND.baddbmm_(g_KNR, self.a_KRD)
        else:
            gx_KND.addcmul_(torch.bmm(g_KNR, self.a_KRD), mask_KND)


def _stack(parts: list[Tensor]) -> Tensor:
    """Matrices [R, D] of like D as [K, R, D], the shorter ones with rows of zeros below."""
    rank = max(part.shape[0] for part in parts)
    if all(part.shape[0] == rank for part in parts):
        return torch.stack(parts)
    stacked = parts[0].new_zeros(len(parts), rank, parts[0].shape[1])
    for whole, part in zip(stacked, parts, strict=True):
        whole[: part.shape[0]].copy_(part)
    return stacked


def _add_each(targets_RD: list[Tensor], stacked_KRD: Tensor) -> None:
    """target += its place in the stack, without the rows that only fill up."""
    # Widened at once: an addition of two dtypes makes a copy of its own for each target.
    parts = stacked_KRD.to(targets_RD[0].dtype).unbind()
    torch._foreach_add_(targets_RD, [part[: len(target)] for target, part in zip(targets_RD, parts, strict=True)])  # pyright: ignore[reportPrivateImportUsage, reportPrivateUsage]


def _accumulate(target: Tensor, left: Tensor, right: Tensor, alpha: float = 1.0) -> None:
    """target += alpha * left @ right, in place when the dtypes allow it."""
    if target.dtype == left.dtype:
        target.addmm_(left, right, alpha=alpha)
    else:
        target.add_(left @ right, alpha=alpha)
