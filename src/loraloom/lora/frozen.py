"""Products of frozen layers, whose weight is asked for each time: plain, or spread from codes.

`frozen_kernel(layer)` gives forward and backward for a layer whose weight is known (nn.Linear, Conv1D,
one of `lora.quantised`); None for anything else, which is then run as it is, under autograd.

On some processors oneDNN multiplies faster than what torch takes by itself. Which do is known by their
maker, not measured, so that the same run gives the same bits.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loraloom.lora.checkpointing import bring_weights

BLOCKS = (1024, 512, 256, 128, 64, 32, 16)
"""Numbers of tokens that oneDNN takes at once: any number is put together from these, the
last one filled up.

For every new number oneDNN compiles a program, which takes milliseconds and more than half a megabyte,
and it keeps a thousand of them: batches of many lengths would pay for them with more memory than a small
model's whole training takes.
"""
CALL_ROWS = 16
"""What a call costs beside its rows, in rows: it reads the whole weight, whose numbers
come from memory or a shared cache."""
SMALLEST = 128 * 128
"""Numbers of a float32 weight below which oneDNN gains nothing."""
PROGRAMS = "128"
"""Programs that oneDNN keeps: several times what one pass needs."""


@dataclass(frozen=True)
class Frozen:
    """How to run a frozen dense layer: `forward` [N, D] -> new [N, O]; `backward` [N,
    O] -> new [N, D]."""

    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor], Tensor]


@runtime_checkable
class FrozenWeight(Protocol):
    """A weight [O, D] that is asked for at every product and never held: it may have to
    be spread from codes first."""

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Its rows in order, as (places of the rows, their numbers [rows, D]) in the
        dtype of the base."""
        ...

    def dense(self) -> Tensor:
        """All of it, [O, D]."""
        ...


class DenseWeight:
    """The weight of a plain layer: nn.Linear, or Conv1D, which keeps it transposed."""

    def __init__(self, layer: nn.Module) -> None:
        self._layer: Any = layer

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        w_OD = self.dense()
        yield slice(0, len(w_OD)), w_OD

    def dense(self) -> Tensor:
        weight: Tensor = self._layer.weight.detach()
        return weight.T if type(self._layer).__name__ == "Conv1D" else weight


def frozen_weight(layer: nn.Module) -> FrozenWeight | None:
    """The weight of a linear layer, or None where only the layer itself knows it."""
    if isinstance(layer, FrozenWeight):
        return layer
    plain = type(layer) is nn.Linear or type(layer).__name__ == "Conv1D"
    return DenseWeight(layer) if plain else None


def dense_weight(layer: nn.Module) -> Tensor:
    """The frozen weight [O, D] of a linear layer; a quantised one is spread anew at each call."""
    bring_weights(layer)
    weight = frozen_weight(layer)
    return layer.weight if weight is None else weight.dense()  # type: ignore[return-value]


def frozen_kernel(layer: nn.Module) -> Frozen | None:
    """How to run a frozen layer, or None where only the layer itself knows."""
    weight = frozen_weight(layer)
    if weight is None:
        return None
    bias_O: Any = layer.bias
    bias_O = None if bias_O is None else bias_O.detach()
    return Frozen(
        lambda x_ND: times_transposed(x_ND, weight, bias_O), lambda gy_NO: times(gy_NO, weight)
    )


def times_transposed(x_ND: Tensor, weight: FrozenWeight, bias_O: Tensor | None) -> Tensor:
    """x W^T + bias, [N, O], block by block of W's rows."""
    parts = [
        _product(x_ND, w_RD, None if bias_O is None else bias_O[rows]) for rows, w_RD in weight.blocks()
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def times(gy_NO: Tensor, weight: FrozenWeight) -> Tensor:
    """gy W, [N, D], block by block of W's rows. What is added up block by block is added up
    in float32 at least."""
    blocks = weight.blocks()
    rows, w_RD = next(blocks)
    gx_ND = _product(gy_NO[:, rows], w_RD.T, None)
    if rows.stop == gy_NO.shape[1]:
        return gx_ND
    gx_ND = gx_ND.to(torch.promote_types(gx_ND.dtype, torch.float32))
    for rows, w_RD in blocks:
        gx_ND += _product(gy_NO[:, rows], w_RD.T, None)
    return gx_ND.to(gy_NO.dtype)


def frozen_product(x: Tensor, weight: FrozenWeight, bias_O: Tensor | None = None) -> Tensor:
    """x W^T + bias for x [.., D], under autograd; the backward pass asks for W once more."""
    return _FrozenProduct.apply(x, weight, bias_O)  # type: ignore[return-value]


class _FrozenProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: FrozenWeight, bias_O: Tensor | None) -> Tensor:
        ctx.weight = weight
        y_NO = times_transposed(x.reshape(-1, x.shape[-1]), weight, bias_O)
        # Not as a view: models add to a layer's output in place, which autograd refuses on a view that a
        # function made.
        return torch.ops.aten._unsafe_view(y_NO, (*x.shape[:-1], y_NO.shape[-1]))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        gy = grads[0]
        gx_ND = times(gy.reshape(-1, gy.shape[-1]), ctx.weight)
        return gx_ND.view(*gy.shape[:-1], gx_ND.shape[-1]), None, None


def _product(x_ND: Tensor, w_OD: Tensor, bias_O: Tensor | None) -> Tensor:
    """x W^T + bias by whatever is fastest here."""
    if not (takes_onednn(w_OD.device.type, w_OD.dtype) and is_large(w_OD.numel(), w_OD.dtype)):
        return F.linear(x_ND, w_OD, bias_O)
    onednn: Any = torch.ops.mkldnn._linear_pointwise
    return _in_blocks(lambda x: onednn(x, w_OD, bias_O, "none", [], ""), x_ND, w_OD.shape[0])


def takes_onednn(device_type: str, dtype: torch.dtype) -> bool:
    """Whether products with weights of this dtype go to oneDNN on this machine's `device_type`.

    On AMD, MKL's float32 products reach half of oneDNN's; torch itself takes it for bfloat16.
    """
    if device_type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if dtype == torch.bfloat16:
        return _takes_bfloat16()
    return dtype == torch.float32 and _vendor() == "AuthenticAMD"


def is_large(numbers: int, dtype: torch.dtype) -> bool:
    """Whether oneDNN gains anything on a weight of so many numbers."""
    return dtype != torch.float32 or numbers >= SMALLEST


def keep_few_programs() -> None:
    """Bound what oneDNN keeps of the programs that it has compiled; counts if it comes
    before its first product."""
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, PROGRAMS)


def _in_blocks(product: Callable[[Tensor], Tensor], x_ND: Tensor, width: int) -> Tensor:
    """`product` of all rows, [N, width], in calls of as many rows as `BLOCKS` has."""
    rows, sizes = x_ND.shape[0], blocks_of(x_ND.shape[0])
    if len(sizes) == 1:
        return product(_filled(x_ND, sizes[0]))[:rows]
    y_NO, start = x_ND.new_empty((rows, width)), 0
    for size in sizes:
        part_ND = x_ND[start : start + size]
        y_NO[start : start + size] = product(_filled(part_ND, size))[: len(part_ND)]
        start += size
    return y_NO


def filled_up(x_ND: Tensor) -> Tensor:
    """x with rows of zeros below it, as many as oneDNN's products would add at each call: for who
    has much wider products made of it, and more of those."""
    if not takes_onednn(x_ND.device.type, x_ND.dtype):
        return x_ND
    return _filled(x_ND, sum(blocks_of(x_ND.shape[0])))


def _filled(x_ND: Tensor, rows: int) -> Tensor:
    return x_ND if len(x_ND) == rows else F.pad(x_ND, (0, 0, 0, rows - len(x_ND)))


@cache
def blocks_of(rows: int) -> tuple[int, ...]:
    """The cheapest calls that together take so many rows; the last may be filled up."""
    whole, rest = divmod(rows, BLOCKS[0])
    return (BLOCKS[0],) * whole + _cheapest(rest)


@cache
def _cheapest(rows: int) -> tuple[int, ...]:
    if rows <= 0:
        return ()
    ways = [
        (size, *_cheapest(rows - size))
        for size in BLOCKS
        if size <= rows or size == _smallest_over(rows)
    ]
    return min(ways, key=lambda sizes: sum(sizes) + CALL_ROWS * len(sizes))


def _smallest_over(rows: int) -> int:
    return min(size for size in BLOCKS if size >= rows)


@cache
def _takes_bfloat16() -> bool:
    """Asked for every product of a pass, and always answered alike."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@cache
def _vendor() -> str:
    """Maker of the processor as Linux names it; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")), "")
