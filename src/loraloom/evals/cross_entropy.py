"""Cross entropy of a frozen linear head, chunk by chunk: the logits of a batch (tokens x vocabulary) never exist at once."""

from __future__ import annotations

import threading
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from loraloom.lora.frozen import frozen_kernel
from loraloom.lora.function import Frozen

CHUNK_BYTES = 24 * 2**20
"""Float32 logits of one chunk take about this much: small enough to stay in a shared cache between the passes over them,
large enough for a fast product."""

_kernels: WeakKeyDictionary[nn.Module, dict[bool, Frozen]] = WeakKeyDictionary()
"""Of each head, by `prepack`."""


_rooms = threading.local()


def _workspace(rows: int, vocabulary: int, narrow: torch.dtype, wide: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Room for one chunk's logits, wide, and their gradient, narrow. Each thread's own, and kept from call to call: tables
    of this size would come from the system anew each time, page by page, which takes as long as filling them does."""
    wanted = (rows, vocabulary, narrow, wide, device)
    if getattr(_rooms, "made", None) != wanted:
        shape = (rows, vocabulary)
        _rooms.tables = torch.empty(shape, dtype=wide, device=device), torch.empty(shape, dtype=narrow, device=device)
        _rooms.made = wanted
    return _rooms.tables


class ChunkedCrossEntropy(torch.autograd.Function):
    """hidden [N, D], targets [N] -> losses [N] and right [N], the first choices that are right (1 or 0).

    The gradient of each loss with respect to its own hidden row is formed while the chunk's logits are there and kept
    as [N, D] (the idea of Liger kernel, arXiv:2410.10989, at a per-row upstream gradient). While training, `right` is
    not worth another pass over the logits and is NaN.
    The eager expression is the contract: F.cross_entropy(head(hidden), targets, reduction="none").
    """

    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, head: Frozen, targets_N: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
        wide = torch.float64 if hidden_ND.dtype == torch.float64 else torch.float32
        losses = torch.empty(hidden_ND.shape[0], dtype=wide, device=hidden_ND.device)
        right = torch.full_like(losses, torch.nan)
        training = ctx.needs_input_grad[0]
        grads_ND = torch.empty_like(hidden_ND) if training else None
        for start in range(0, hidden_ND.shape[0], chunk):
            part = slice(start, min(start + chunk, hidden_ND.shape[0]))
            targets, logits = targets_N[part, None], head.forward(hidden_ND[part])
            whole = _workspace(chunk, logits.shape[1], hidden_ND.dtype, wide, hidden_ND.device)
            log_p, soft = (table[: len(logits)] for table in whole)
            # Widened first: log_softmax(dtype=...) takes a slow way on a CPU.
            torch.log_softmax(log_p.copy_(logits), -1, out=log_p)
            losses[part] = log_p.gather(-1, targets).squeeze(-1).neg_()
            if grads_ND is None:
                right[part] = log_p.argmax(-1, keepdim=True).eq(targets).squeeze(-1).to(wide)
            else:
                log_p.exp_().scatter_add_(-1, targets, log_p.new_full((1, 1), -1.0).expand_as(targets))
                grads_ND[part] = head.backward(soft.copy_(log_p))
        if grads_ND is not None:
            ctx.save_for_backward(grads_ND)
        ctx.mark_non_differentiable(right)
        return losses, right

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (grads_ND,) = ctx.saved_tensors
        return grads_ND * grads[0][:, None].to(grads_ND.dtype), None, None, None


def token_losses(hidden_ND: Tensor, head: nn.Linear, targets_N: Tensor, *, prepack: bool = True) -> tuple[Tensor, Tensor]:
    """Losses [N] in nats and first choices that are right [N], of hidden states [N, D] under a frozen head.

    Args:
        prepack: spend memory on a faster layout of the head (`frozen_kernel`), which is kept as long as the head.
    """
    kernels = _kernels.setdefault(head, {})
    kernel = kernels.get(prepack) or frozen_kernel(head, prepack=prepack)
    assert kernel is not None
    kernels[prepack] = kernel
    chunk = max(1, CHUNK_BYTES // (4 * head.weight.shape[0]))
    return ChunkedCrossEntropy.apply(hidden_ND, kernel, targets_N, chunk)  # type: ignore[return-value]
