"""Kernels of frozen layers: a weight that never changes can be laid out once for the fastest product.

`frozen_kernel(layer)` gives forward and backward for a layer whose weight is known (nn.Linear, Conv1D,
one of `lora.quantised`); None for anything else, which is then run as it is, under autograd.

On a CPU oneDNN can keep a weight in its own blocked layout, once for x W^T and once for g W. That takes
the weight's memory twice more. Where it pays is known by processor, not measured, so that the same run
gives the same bits.
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

PREPACK_ROWS = 256
"""Number of tokens that a layout is made for; other numbers work as well."""
BLOCKS = (1024, 512, 256, 128, 64, 16)
"""Numbers of tokens that such a product takes at once: any number is put together from
these, the last one filled up.

For every new number oneDNN compiles a program, which takes milliseconds and more than half a megabyte,
and it keeps a thousand of them: batches of many lengths would pay for them with more memory than a small
model's whole training takes.
"""
CALL_ROWS = 16
"""What a call costs beside its rows, in rows: it reads the whole weight, whose numbers
come from memory or a shared cache."""
SMALLEST = 128 * 128
"""Numbers of a float32 weight below which a layout gains nothing."""
PROGRAMS = "128"
"""Programs that oneDNN keeps, of these products and of all others in half precision:
several times what one pass needs."""


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


def times_transposed(x_ND: Tensor, weight: FrozenWeight, bias_O: Tensor | None) -> Tensor:
    """x W^T + bias, [N, O], block by block of W's rows."""
    parts = [
        F.linear(x_ND, w_RD, None if bias_O is None else bias_O[rows]) for rows, w_RD in weight.blocks()
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def times(gy_NO: Tensor, weight: FrozenWeight) -> Tensor:
    """gy W, [N, D], block by block of W's rows. What is added up block by block is
    added up in float32 at least."""
    blocks = weight.blocks()
    rows, w_RD = next(blocks)
    gx_ND = gy_NO[:, rows] @ w_RD
    if rows.stop == gy_NO.shape[1]:
        return gx_ND
    gx_ND = gx_ND.to(torch.promote_types(gx_ND.dtype, torch.float32))
    for rows, w_RD in blocks:
        gx_ND += gy_NO[:, rows] @ w_RD
    return gx_ND.to(gy_NO.dtype)


def frozen_kernel(layer: nn.Module, *, prepack: bool = True) -> Frozen | None:
    """How to run a frozen layer, or None where only the layer itself knows.

    Args:
        prepack: spend twice the weight's memory on oneDNN's layout, where that is faster.
    """
    if isinstance(layer, FrozenWeight):
        spread: Any = layer
        return Frozen(
            lambda x_ND: times_transposed(x_ND, spread, spread.bias), lambda gy_NO: times(gy_NO, spread)
        )
    weight, bias = getattr(layer, "weight", None), getattr(layer, "bias", None)
    if not isinstance(weight, Tensor) or not weight.is_floating_point():
        return None
    if type(layer) is nn.Linear:
        w_OD = weight.detach()
    elif type(layer).__name__ == "Conv1D":
        w_OD = weight.detach().T
    else:
        return None
    bias = None if bias is None else bias.detach()
    if (
        prepack
        and prepacking_pays(weight.device.type, weight.dtype)
        and has_layout(weight.numel(), weight.dtype)
    ):
        return _prepacked(w_OD, bias)
    return Frozen(lambda x_ND: F.linear(x_ND, w_OD, bias), lambda gy_NO: gy_NO @ w_OD)


def prepacking_pays(device_type: str, dtype: torch.dtype) -> bool:
    """Whether oneDNN's layout is faster for weights of this dtype on this machine's `device_type`.

    On AMD, MKL's float32 products reach half of oneDNN's; in bfloat16 the layout saves
    a reorder at every call.
    """
    if device_type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32 and _vendor() == "AuthenticAMD"


def has_layout(numbers: int, dtype: torch.dtype) -> bool:
    """Whether a weight of so many numbers gets a layout, where layouts pay."""
    return dtype != torch.float32 or numbers >= SMALLEST


def keep_few_programs() -> None:
    """Bound what oneDNN keeps of the programs that it has compiled; counts if it comes
    before its first product."""
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, PROGRAMS)


def _prepacked(w_OD: Tensor, bias: Tensor | None) -> Frozen:
    ops: Any = torch.ops.mkldnn
    forward = ops._reorder_linear_weight(w_OD.contiguous(), PREPACK_ROWS)
    backward = ops._reorder_linear_weight(w_OD.T.contiguous(), PREPACK_ROWS)
    d_out, d_in = w_OD.shape
    return Frozen(
        lambda x_ND: _in_blocks(
            lambda x: ops._linear_pointwise(x, forward, bias, "none", [], ""), x_ND, d_out
        ),
        lambda gy_NO: _in_blocks(
            lambda gy: ops._linear_pointwise(gy, backward, None, "none", [], ""), gy_NO, d_in
        ),
    )


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
def _vendor() -> str:
    """Maker of the processor as Linux names it; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")), "")
