"""Attention for short rows on a CPU: three batched products and a softmax beat the
tiled kernel until rows get long.

torch's fused CPU kernel works row block by row block, which pays once the table of scores no longer fits
the cache: in bfloat16 later than in float32. Longer causal rows go block by block (`attention_blocks`);
what is longer still, and everything that is not plain softmax attention, goes to the fused kernel.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from loraloom.lora.attention_blocks import BlockAttention, takes, wide

NAME = "loraloom_rows"
LONGEST = {torch.bfloat16: 512, torch.float32: 160, torch.float64: 160}
"""Rows up to this many tokens are taken here: about where the two are equally fast with
heads of 64, on two cores."""
MOST_BYTES = 256 * 2**20
"""Of one layer's table of scores."""


class RowAttention(torch.autograd.Function):
    """softmax(scale * q k^T + bias) v for B rows, H heads of D features, G key heads, T
    queries and S keys.

    q [B, H, T, D], k and v [B, G, S, D], bias broadcastable to [B * G, H / G * T, S] and never trained.
    The contract is torch.nn.functional.scaled_dot_product_attention(..., enable_gqa=True).
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Tensor:
        b, h, t, _ = q.shape
        g, s = k.shape[1], k.shape[2]
        q_NTD = wide(q).view(b * g, h // g * t, -1)
        k_NSD, v_NSE = wide(k).view(b * g, s, -1), wide(v).view(b * g, s, -1)
        no_bias = q.new_zeros(1)
        scores_NTS = torch.baddbmm(no_bias if bias is None else bias, q_NTD, k_NSD.mT, alpha=scale)
        p_NTS = torch.softmax(scores_NTS, -1)
        ctx.save_for_backward(q_NTD, k_NSD, v_NSE, p_NTS)
        ctx.shapes = (q.shape, k.shape, v.shape, scale)
        return torch.bmm(p_NTS, v_NSE).view(b, h, t, -1)[..., : v.shape[-1]]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        q_NTD, k_NSD, v_NSE, p_NTS = ctx.saved_tensors
        q_shape, k_shape, v_shape, scale = ctx.shapes
        gy_NTE = wide(grads[0]).view(q_NTD.shape[0], q_NTD.shape[1], -1)
        gp_NTS = torch.bmm(gy_NTE, v_NSE.mT)
        gs_NTS = torch._softmax_backward_data(gp_NTS, p_NTS, -1, p_NTS.dtype).mul_(scale)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
        gq, gk, gv = torch.bmm(gs_NTS, k_NSD), torch.bmm(gs_NTS.mT, q_NTD), torch.bmm(p_NTS.mT, gy_NTE)
        parts = zip((gq, gk, gv), (q_shape, k_shape, v_shape), strict=True)
        return *(x.view(*shape[:-1], -1)[..., : shape[-1]] for x, shape in parts), None, None


def row_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """An attention function as transformers calls it; gives [B, T, H, D] and no weights."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    special = dropout > 0 or any(
        kwargs.get(name) is not None for name in ("position_bias", "cache", "softcap", "s_aux")
    )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if (
        not special
        and (attention_mask is not None or _causal_by_itself(module, is_causal))
        and takes(query, key, attention_mask)
    ):
        out = BlockAttention.apply(query, key, value, attention_mask, scale)
        return out.transpose(1, 2).contiguous(), None  # type: ignore[union-attr]
    bias = _UNKNOWN if special else _bias(module, query, key, attention_mask, is_causal)
    if bias is _UNKNOWN or not _short(query, key):
        return sdpa_attention_forward(
            module,
            query,
            key,
            value,
            attention_mask,
            dropout=dropout,
            scaling=scaling,
            is_causal=is_causal,
            **kwargs,
        )
    out = RowAttention.apply(query, key, value, bias, scale)
    return out.transpose(1, 2).contiguous(), None  # type: ignore[union-attr]


def use_row_attention(model: Any, device_type: str | None = None) -> None:
    """Let a model on a CPU that runs torch's fused attention use this one for short
    rows; leaves other models alone.

    Args:
        device_type: where the model will run, if that is not where it is (a model on the meta device).
    """
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    device_type = device_type or next(model.parameters()).device.type
    if device_type != "cpu" or getattr(model.config, "_attn_implementation", None) != "sdpa":
        return
    if NAME not in ALL_ATTENTION_FUNCTIONS:
        ALL_ATTENTION_FUNCTIONS.register(NAME, row_attention)
        ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    model.set_attn_implementation(NAME)


_UNKNOWN = torch.empty(0)


def most_rows(heads: int, queries: int, keys: int, dtype: torch.dtype) -> int:
    """How many rows of so many tokens one call may take here; 0 where the rows are too long."""
    if max(queries, keys) > LONGEST.get(dtype, 0):
        return 0
    return MOST_BYTES // (heads * queries * keys * dtype.itemsize)


def _short(query: Tensor, key: Tensor) -> bool:
    b, h, t, _ = query.shape
    return b <= most_rows(h, t, key.shape[2], query.dtype)


def _causal_by_itself(module: nn.Module, is_causal: bool | None) -> bool:
    """Whether attention without a mask is causal."""
    return bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)


def _bias(
    module: nn.Module, query: Tensor, key: Tensor, mask: Tensor | None, is_causal: bool | None
) -> Tensor | None:
    """What is added to the scores, broadcastable to [B * G, H / G * T, S]; `_UNKNOWN`
    for a mask of another make."""
    b, h, t, _ = query.shape
    g, s = key.shape[1], key.shape[2]
    if mask is None:
        causal = _causal_by_itself(module, is_causal)
        return causal_bias(t, s, h // g, query.dtype, query.device) if causal and t > 1 else None
    if mask.dim() != 4 or mask.shape[1] != 1 or mask.shape[0] not in (1, b) or mask.shape[-1] != s:
        return _UNKNOWN
    if mask.dtype == torch.bool:
        lowest = torch.finfo(query.dtype).min
        mask = torch.zeros(mask.shape, dtype=query.dtype, device=mask.device).masked_fill_(~mask, lowest)
    elif mask.dtype != query.dtype:
        return _UNKNOWN
    if mask.shape[2] == 1:
        return mask.expand(b, g, 1, s).reshape(b * g, 1, s)
    return (
        mask.expand(b, g, t, s)
        .reshape(b * g, 1, t, s)
        .expand(-1, h // g, t, s)
        .reshape(b * g, h // g * t, s)
    )


@lru_cache(maxsize=64)
def causal_bias(t: int, s: int, groups: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """0 up to the own position, -inf after it, for `groups` query heads that share a
    key head: [1, groups * t, s]."""
    table = torch.full((t, s), -torch.inf, dtype=dtype, device=device).triu(1)
    return table.repeat(groups, 1)[None]
