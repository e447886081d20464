"""`deltas.AdapterDelta` of all candidates in one layer and pass at once, by the kernels of `delta`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from loraloom.lora.kernels import interpreted
from loraloom.lora.kernels.tables import TILE

if TYPE_CHECKING:
    from loraloom.lora.routing import Routing

FEATURES = 64
"""Features that one program holds at a time."""
SUMMED = TILE // 2
"""Tokens that a program sums gradients over at a time."""
LEAST_RANKS, MOST_RANKS = 16, 64
"""Ranks that one program holds: no fewer than a tensor core takes, and of 16 bits no more than registers
do. float32, whose exact products take no tensor core, keeps to the least."""


class KernelDeltas:
    """All candidates of a pass in one layer: `AdapterDelta` for each of them, in as
    many launches as for one.

    Args:
        routing: one with tables.
        number: of the layer.
        tokens: of one row of the batch.
        dtype: in which the layer multiplies.
    """

    def __init__(self, routing: Routing, number: int, tokens: int, dtype: torch.dtype) -> None:
        assert routing.tables is not None
        self._table = table = routing.tables.layers[number]
        self._segments, self._spans = len(routing.segments), routing.spans(tokens)
        self._tiles = self._spans[self._segments :]
        self._places = (tokens, number)
        most = LEAST_RANKS if dtype == torch.float32 else MOST_RANKS
        block_r = min(most, max(LEAST_RANKS, 1 << (table.most_rank - 1).bit_length()))
        self._rank_blocks = -(-table.most_rank // block_r)
        self._options = {
            "W": self._rank_blocks * block_r,
            "DROPS": routing.training and table.drops,
            "ALIGNED": table.aligned,
            "WIDEN": interpreted(),
            "BLOCK_F": FEATURES,
            "BLOCK_R": block_r,
        }

    def forward(self, flat_ND: Tensor, y_NO: Tensor) -> Tensor:
        """Add the adapters' deltas to y; gives h."""
        h_NW = self._shrink(flat_ND, is_a=True)
        self._expand(h_NW, y_NO, is_a=False)
        return h_NW

    def backward(self, flat_ND: Tensor, gy_NO: Tensor, gx_ND: Tensor | None, h_NW: Tensor) -> None:
        """Add the adapters' gradients to their arenas, and their parts of the input's gradient to gx."""
        gy_NO = gy_NO.contiguous()
        g_NW = self._shrink(gy_NO, is_a=False)
        self._accumulate(h_NW, gy_NO, is_a=False)
        self._accumulate(g_NW, flat_ND.contiguous(), is_a=True)
        if gx_ND is not None:
            self._expand(g_NW, gx_ND, is_a=True)

    def _shrink(self, x_NF: Tensor, *, is_a: bool) -> Tensor:
        h_NW = x_NF.new_empty(len(x_NF), self._options["W"])
        grid = (len(self._tiles), self._rank_blocks)
        with torch.cuda.device_of(x_NF):
            _kernel("shrink")[grid](
                x_NF.contiguous(),
                h_NW,
                self._table.rows_KF,
                self._tiles,
                *self._places,
                F=x_NF.shape[1],
                IS_A=is_a,
                BLOCK_N=TILE,
                **self._options,
            )
        return h_NW

    def _expand(self, h_NW: Tensor, y_NF: Tensor, *, is_a: bool) -> None:
        assert y_NF.is_contiguous(), "written in place"
        grid = (len(self._tiles), -(-y_NF.shape[1] // FEATURES))
        with torch.cuda.device_of(y_NF):
            _kernel("expand")[grid](
                h_NW,
                y_NF,
                self._table.rows_KF,
                self._tiles,
                *self._places,
                F=y_NF.shape[1],
                IS_A=is_a,
                BIASED=self._table.biased and not is_a,
                BLOCK_N=TILE,
                **self._options,
            )

    def _accumulate(self, h_NW: Tensor, x_NF: Tensor, *, is_a: bool) -> None:
        grid = (-(-x_NF.shape[1] // FEATURES), self._segments, self._rank_blocks)
        with torch.cuda.device_of(x_NF):
            _kernel("accumulate")[grid](
                h_NW,
                x_NF,
                self._table.rows_KF,
                self._spans,
                *self._places,
                F=x_NF.shape[1],
                IS_A=is_a,
                BIASED=self._table.biased and not is_a,
                BLOCK_N=SUMMED,
                **self._options,
            )


def _kernel(name: str) -> Any:
    from loraloom.lora.kernels import delta

    return getattr(delta, name)
