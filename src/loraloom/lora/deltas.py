"""What adapters add to one frozen layer in one pass, forwards and backwards: one by
one, or all at once as batched products.

For one adapter with scale s and a mask m that keeps with probability 1 - p, both scales
taken together as c = s / (1 - p):
    h = (x*m) A^T            y += c h B^T
    g = c gy B               dB += c gy^T h      dA += g^T (x*m)      dx += m * (g A)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Protocol

import torch
from torch import Tensor

from loraloom.lora.dropout import Mask, fill_all
from loraloom.lora.transfer import send


@dataclass
class LayerWeights:
    """One adapter's part in one layer. `a` and `b` are views of its arena, or of its
    copy in the base's dtype."""

    a_RD: Tensor
    b_OR: Tensor
    grad_a_RD: Tensor
    grad_b_OR: Tensor
    scale: float
    dropout: float
    bias_O: Tensor | None = None
    grad_bias_O: Tensor | None = None


@dataclass
class AdapterDelta:
    """One adapter in one layer for one pass. `place` is its part of the flat tokens; `seed` is of its
    dropout, if any; `layer` is the layer's number."""

    weight: LayerWeights
    place: slice
    rows: int
    seed: int | None
    layer: int

    @cached_property
    def mask(self) -> Mask | None:
        """Which of this delta's inputs are kept; None for all."""
        if self.seed is None:
            return None
        tokens = (self.place.stop - self.place.start) // self.rows
        features = self.weight.a_RD.shape[1]
        return Mask(self.rows, tokens, features, self.weight.dropout, self.seed, self.layer)

    @property
    def scale(self) -> float:
        """Of the adapter and of its dropout."""
        return self.weight.scale if self.mask is None else self.weight.scale * self.mask.scale

    def forward(self, flat_ND: Tensor, y_NO: Tensor) -> Tensor:
        """Add this adapter's delta to y; gives h."""
        weight = self.weight
        y_rows = y_NO[self.place]
        x_rows, _ = self._masked(flat_ND)
        h_NR = x_rows @ weight.a_RD.T
        y_rows.addmm_(h_NR, weight.b_OR.T, alpha=self.scale)
        if weight.bias_O is not None:
            y_rows.add_(weight.bias_O)
        return h_NR

    def backward(self, flat_ND: Tensor, gy_NO: Tensor, gx_ND: Tensor | None, h_NR: Tensor) -> None:
        """Add this adapter's gradients to its arena, and its part of the input's gradient to gx."""
        weight = self.weight
        gy_rows = gy_NO[self.place]
        x_rows, mask_ND = self._masked(flat_ND)
        g_NR = (gy_rows @ weight.b_OR).mul_(self.scale)
        _accumulate(weight.grad_b_OR, gy_rows.T, h_NR, self.scale)
        _accumulate(weight.grad_a_RD, g_NR.T, x_rows)
        if weight.grad_bias_O is not None:
            weight.grad_bias_O.add_(gy_rows.sum(0))
        if gx_ND is None:
            return
        if mask_ND is None:
            gx_ND[self.place].addmm_(g_NR, weight.a_RD)
        else:
            gx_ND[self.place].addcmul_(g_NR @ weight.a_RD, mask_ND)

    def _masked(self, flat_ND: Tensor) -> tuple[Tensor, Tensor | None]:
        """This delta's part of x, dropped where it drops, and the mask of ones and zeros."""
        x_rows = flat_ND[self.place]
        if self.mask is None:
            return x_rows, None
        mask_ND = self.mask.fill(torch.empty_like(x_rows))
        return x_rows * mask_ND, mask_ND


class LayerStack(Protocol):
    """A and B of a layer, of K candidates side by side: [K, R, D], and [K, R, O] for B transposed."""

    @property
    def a_KRD(self) -> Tensor: ...

    @property
    def b_KRO(self) -> Tensor: ...

    def add(self, grad_a_KRD: Tensor, grad_b_KRO: Tensor) -> None:
        """Add to the candidates' gradients."""


class OwnStack:
    """A layer's stack made for this layer alone, of candidates of any rank, anew for each product: kept
    to the backward pass, those of all layers would take as much as the candidates' weights once more.

    Smaller ranks are padded with zeros, which is exact: a zero row of A gives a zero column of h, meets
    a zero column of B, and its gradient is dropped.
    """

    def __init__(self, weights: list[LayerWeights]) -> None:
        self._weights = weights

    @property
    def a_KRD(self) -> Tensor:
        return _stack([weight.a_RD for weight in self._weights])

    @property
    def b_KRO(self) -> Tensor:
        parts = [weight.b_OR for weight in self._weights]
        if all(part.shape == parts[0].shape for part in parts):
            return torch.stack(parts).mT
        return _stack([part.T for part in parts])

    def add(self, grad_a_KRD: Tensor, grad_b_KRO: Tensor) -> None:
        _add_each([weight.grad_a_RD for weight in self._weights], grad_a_KRD)
        _add_each([weight.grad_b_OR.T for weight in self._weights], grad_b_KRO)


class StackedDeltas:
    """Lanes of equally many tokens, in the order of the batch, as batched products: K
    adapters, N tokens each."""

    def __init__(self, deltas: list[AdapterDelta], stack: LayerStack) -> None:
        self.deltas, self.stack = deltas, stack
        weights = [delta.weight for delta in deltas]
        self.biases = [
            (n, w.bias_O, w.grad_bias_O) for n, w in enumerate(weights) if w.bias_O is not None
        ]
        self.dropped = any(delta.seed is not None for delta in deltas)
        scales = [delta.scale for delta in deltas]
        same = all(scale == scales[0] for scale in scales)
        self.scales = (
            scales[0] if same else _column(tuple(scales), weights[0].a_RD.dtype, weights[0].a_RD.device)
        )

    def forward(self, flat_ND: Tensor, y_NO: Tensor) -> Tensor:
        """Add the adapters' deltas to y; gives c h."""
        x_KND, _ = self._masked(flat_ND)
        h_KNR = torch.bmm(x_KND, self.stack.a_KRD.mT).mul_(self.scales)
        y_KNO = y_NO.view(len(self.deltas), -1, y_NO.shape[1])
        y_KNO.baddbmm_(h_KNR, self.stack.b_KRO)
        for number, bias_O, _ in self.biases:
            y_KNO[number].add_(bias_O)
        return h_KNR

    def backward(self, flat_ND: Tensor, gy_NO: Tensor, gx_ND: Tensor | None, h_KNR: Tensor) -> None:
        """Add the adapters' gradients to the stack, and their parts of the input's gradient to gx."""
        x_KND, mask_KND = self._masked(flat_ND)
        gy_KNO = gy_NO.reshape(len(self.deltas), -1, gy_NO.shape[1])
        g_KNR = torch.bmm(gy_KNO, self.stack.b_KRO.mT).mul_(self.scales)
        self.stack.add(torch.bmm(g_KNR.mT, x_KND), _products_over_rows(h_KNR, gy_KNO))
        for number, _, grad_bias_O in self.biases:
            if grad_bias_O is not None:
                grad_bias_O.add_(gy_KNO[number].sum(0))
        if gx_ND is None:
            return
        gx_KND = gx_ND.view(x_KND.shape)
        if mask_KND is None:
            gx_KND.baddbmm_(g_KNR, self.stack.a_KRD)
        else:
            gx_KND.addcmul_(torch.bmm(g_KNR, self.stack.a_KRD), mask_KND)

    def _masked(self, flat_ND: Tensor) -> tuple[Tensor, Tensor | None]:
        """x as [K, N, D], dropped where a delta drops, and the mask (None when none does)."""
        x_KND = flat_ND.view(len(self.deltas), -1, flat_ND.shape[1])
        if not self.dropped:
            return x_KND, None
        mask_KND = fill_all([delta.mask for delta in self.deltas], torch.empty_like(x_KND))
        return x_KND * mask_KND, mask_KND


def _products_over_rows(h_KNR: Tensor, gy_KNO: Tensor) -> Tensor:
    """h^T gy [K, R, O], to be added to gradients of B, which lie transposed: in half precision an
    addition across two orders takes three times as long as the product; MKL's products in float32
    are slow in that order instead."""
    if gy_KNO.dtype.itemsize < 4:
        return torch.bmm(gy_KNO.mT, h_KNR).mT
    return torch.bmm(h_KNR.mT, gy_KNO)


@lru_cache(maxsize=256)
def _column(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Numbers of K deltas as [K, 1, 1]: the same in all layers of a pass, so that they are sent once."""
    return send(torch.tensor(values, dtype=dtype), device)[:, None, None]


def _stack(parts: list[Tensor]) -> Tensor:
    """Matrices [R, D] of like D as [K, R, D], the shorter ones with rows of zeros below."""
    rank = max(part.shape[0] for part in parts)
    if all(part.shape[0] == rank for part in parts):
        return torch.stack(parts)
    stacked = parts[0].new_zeros(len(parts), rank, parts[0].shape[1])
    places = [whole[: part.shape[0]] for whole, part in zip(stacked, parts, strict=True)]
    torch._foreach_copy_(places, parts)  # pyright: ignore[reportPrivateImportUsage, reportPrivateUsage]
    return stacked


def _add_each(targets_RD: list[Tensor], stacked_KRD: Tensor) -> None:
    """target += its place in the stack, without the rows that only fill up."""
    # Widened at once: an addition of two dtypes makes a copy of its own for each target.
    parts = stacked_KRD.to(targets_RD[0].dtype).unbind()
    own = [part[: len(target)] for target, part in zip(targets_RD, parts, strict=True)]
    torch._foreach_add_(targets_RD, own)  # pyright: ignore[reportPrivateImportUsage, reportPrivateUsage]


def _accumulate(target: Tensor, left: Tensor, right: Tensor, alpha: float = 1.0) -> None:
    """target += alpha * left @ right, in place when the dtypes allow it."""
    if target.dtype == left.dtype:
        target.addmm_(left, right, alpha=alpha)
    else:
        target.add_(left @ right, alpha=alpha)
