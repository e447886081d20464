"""Causal attention on a CPU, block of queries by block of queries: no table of scores is kept, and none
of what no query may see is computed.

Each block is scored against the keys up to its own end, so little more than half of the square is
touched, and a block's scores fit the cache. The backward pass computes them anew, as FlashAttention does
(arXiv:2205.14135, algorithm 4), which costs less than to keep them. Heads narrower than WIDTH are padded
with zeros: the products of oneDNN and MKL are slower with 8 columns than with 16.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

SIZE = {torch.bfloat16: 128, torch.float32: 64, torch.float64: 64}
"""Queries of a block; half or twice as many are about as fast."""
WIDTH = 16
SHORTEST = {torch.bfloat16: 513, torch.float32: 161, torch.float64: 161}
LONGEST = {torch.bfloat16: 2048, torch.float32: 1024, torch.float64: 1024}
"""Between these lengths it is faster than a whole table (`attention.LONGEST`) and than
torch's fused kernel."""


class BlockAttention(torch.autograd.Function):
    """softmax(scale * q k^T + mask) v for B rows, H heads of D features, G key heads and T tokens.

    q [B, H, T, D], k [B, G, T, D], v [B, G, T, E]; mask is None (each token sees itself and those before
    it) or a boolean [1 or B, 1, T, T] that lets no token see a later one. Gives [B, H, T, E].
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
        ctx.save_for_backward(q, k, v, mask)
        ctx.scale = scale
        q_BGRTD, out_BGRTE = (
            _grouped(q, k.shape[1]),
            _grouped(q.new_empty(*q.shape[:-1], v.shape[-1]), k.shape[1]),
        )
        wide_v, width = wide(v), v.shape[-1]
        for row, start, end in _blocks(q):
            p_GNS = _probabilities(
                _block(q_BGRTD, row, start, end),
                k[row, :, :end],
                _bias(mask, q, k, row, start, end),
                scale,
            )
            y_GNE = torch.bmm(p_GNS, wide_v[row, :, :end])[..., :width]
            out_BGRTE[row, :, :, start:end] = y_GNE.view(k.shape[1], -1, end - start, width)
        return out_BGRTE.flatten(1, 2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        q, k, v, mask = ctx.saved_tensors
        scale, groups, d, e = ctx.scale, k.shape[1], q.shape[-1], v.shape[-1]
        wide_q, wide_k, wide_g = wide(q), wide(k), wide(grads[0])
        q_BGRTD, g_BGRTE = _grouped(wide_q, groups), _grouped(wide_g, groups)
        gq_BGRTD = _grouped(torch.empty_like(q, memory_format=torch.contiguous_format), groups)
        gk, gv = torch.zeros_like(wide_k), wide_k.new_zeros(*wide_k.shape[:-1], wide_g.shape[-1])
        for row, start, end in _blocks(q):
            q_GND, g_GNE = _block(q_BGRTD, row, start, end), _block(g_BGRTE, row, start, end)
            p_GNS = _probabilities(
                q_GND[..., :d], k[row, :, :end], _bias(mask, q, k, row, start, end), scale
            )
            gp_GNS = torch.bmm(g_GNE[..., :e], v[row, :, :end].mT)
            gs_GNS = torch._softmax_backward_data(gp_GNS, p_GNS, -1, p_GNS.dtype)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
            gv[row, :, :end].baddbmm_(p_GNS.mT, g_GNE)
            gk[row, :, :end].baddbmm_(gs_GNS.mT, q_GND, alpha=scale)
            gq_GND = torch.bmm(gs_GNS, wide_k[row, :, :end])[..., :d].mul_(scale)
            gq_BGRTD[row, :, :, start:end] = gq_GND.view(groups, -1, end - start, d)
        return gq_BGRTD.flatten(1, 2), gk[..., :d], gv[..., :e], None, None


def takes(query: Tensor, key: Tensor, mask: Tensor | None) -> bool:
    """Whether the blocks serve this call: a row that reads itself, of a length for which they are
    faster, with a mask that they understand (None stands for plain causal attention)."""
    t = query.shape[2]
    if key.shape[2] != t or not SHORTEST.get(query.dtype, t + 1) <= t <= LONGEST[query.dtype]:
        return False
    if mask is None:
        return True
    shaped = mask.dtype == torch.bool and mask.shape in {(1, 1, t, t), (query.shape[0], 1, t, t)}
    return shaped and bool((~mask.triu(1)).all())


def wide(x: Tensor) -> Tensor:
    """Contiguous, with zeros appended to narrow heads."""
    return F.pad(x, (0, WIDTH - x.shape[-1])) if x.shape[-1] < WIDTH else x.contiguous()


def _grouped(x: Tensor, groups: int) -> Tensor:
    """[B, H, T, D] as [B, G, H / G, T, D]: the query heads that share a key head lie together."""
    return x.unflatten(1, (groups, -1))


def _blocks(q: Tensor) -> list[tuple[int, int, int]]:
    """Row, first query and end of each block."""
    size = SIZE[q.dtype]
    return [
        (row, start, min(start + size, q.shape[2]))
        for row in range(q.shape[0])
        for start in range(0, q.shape[2], size)
    ]


def _block(x_BGRTD: Tensor, row: int, start: int, end: int) -> Tensor:
    """[G, H / G * N, D] of one row's N queries."""
    return x_BGRTD[row, :, :, start:end].flatten(1, 2)


def _bias(mask: Tensor | None, q: Tensor, k: Tensor, row: int, start: int, end: int) -> Tensor:
    """What is added to a block's scores: [1, H / G * N, S]."""
    heads = q.shape[1] // k.shape[1]
    if mask is None:
        return _causal(end - start, end, heads, q.dtype, q.device)
    seen = mask[row if mask.shape[0] > 1 else 0, :, start:end, :end]
    bias = torch.zeros(seen.shape, dtype=q.dtype, device=q.device).masked_fill_(
        ~seen, torch.finfo(q.dtype).min
    )
    return bias.repeat(1, heads, 1)


@lru_cache(maxsize=64)
def _causal(queries: int, keys: int, heads: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """0 up to the own position and -inf after it, for the last of so many keys."""
    table = torch.full((queries, keys), -torch.inf, dtype=dtype, device=device).triu(1 + keys - queries)
    return table.repeat(heads, 1)[None]


def _probabilities(q_GND: Tensor, k_GSD: Tensor, bias: Tensor, scale: float) -> Tensor:
    return torch.softmax(torch.baddbmm(bias, q_GND, k_GSD.mT, alpha=scale), -1)
