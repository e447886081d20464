"""Cross entropy of a frozen linear head, chunk by chunk: the logits of a batch (tokens
x vocabulary) never exist at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from loraloom.lora.frozen import Frozen, frozen_kernel
from loraloom.lora.kernels import selftest

CHUNK_BYTES = 24 * 2**20
"""Logits of one chunk would take about this much in float32: enough rows for a fast
product, few enough for a shared cache."""
CUDA_ROWS = 1024
"""Rows of a chunk on CUDA, at least: each chunk reads the head from memory twice, and with fewer rows
than this that takes longer than the products."""
BLOCK_BYTES = 3 * 2**20
"""A CPU widens so much of a chunk at once and makes gradients of it: the passes over it
then stay in a core's own cache."""

_rooms = threading.local()


def _room(rows: int, vocabulary: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A table for logits that are widened, [rows, vocabulary]. Each thread's own, and kept from call to
    call: one of this size would come from the system anew each time, page by page, which takes as long
    as filling it does."""
    wanted = (rows, vocabulary, dtype, device)
    if getattr(_rooms, "made", None) != wanted:
        _rooms.table = torch.empty((rows, vocabulary), dtype=dtype, device=device)
        _rooms.made = wanted
    return _rooms.table


class ChunkedCrossEntropy(torch.autograd.Function):
    """hidden [N, D], targets [N] -> losses [N] and right [N], the first choices that are right (1 or 0).

    The gradient of each loss with respect to its own hidden row is formed while the chunk's logits are
    there and kept as [N, D] (the idea of Liger kernel, arXiv:2410.10989, at a per-row upstream
    gradient). While training, `right` is not worth another pass over the logits and is NaN. The eager
    expression is the contract: F.cross_entropy(head(hidden), targets, reduction="none").
    """

    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, head: Frozen, targets_N: Tensor, chunk: int
    ) -> tuple[Tensor, Tensor]:
        wide = torch.float64 if hidden_ND.dtype == torch.float64 else torch.float32
        losses = torch.empty(hidden_ND.shape[0], dtype=wide, device=hidden_ND.device)
        right = torch.full_like(losses, torch.nan)
        training = ctx.needs_input_grad[0]
        grads_ND = torch.empty_like(hidden_ND) if training else None
        for part in _parts(hidden_ND.shape[0], chunk):
            logits = head.forward(hidden_ND[part])
            targets = targets_N[part, None]
            for block in _parts(len(logits), _block(logits, wide)):
                losses[part][block] = _losses(
                    logits[block], targets[block], wide, None if training else right[part][block]
                )
            if grads_ND is not None:
                grads_ND[part] = head.backward(logits)
        if grads_ND is not None:
            ctx.save_for_backward(grads_ND)
        ctx.mark_non_differentiable(right)
        return losses, right

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (grads_ND,) = ctx.saved_tensors
        return grads_ND * grads[0][:, None].to(grads_ND.dtype), None, None, None


def chunk_rows(vocabulary: int, device: torch.device) -> int:
    """Rows of a chunk."""
    return max(CUDA_ROWS if device.type == "cuda" else 1, CHUNK_BYTES // (4 * vocabulary))


def _parts(rows: int, most: int) -> Iterator[slice]:
    """All rows in order, `most` at a time."""
    return (slice(start, min(start + most, rows)) for start in range(0, rows, most))


def _block(logits_NV: Tensor, wide: torch.dtype) -> int:
    """Rows of a chunk that are taken at once."""
    if logits_NV.device.type != "cpu":
        return len(logits_NV)
    return max(1, BLOCK_BYTES // (wide.itemsize * logits_NV.shape[1]))


def _losses(logits_NV: Tensor, targets_N1: Tensor, wide: torch.dtype, right_N: Tensor | None) -> Tensor:
    """Losses [N] of logits [N, V]. Fills `right_N` where there is one, else turns the
    logits into their gradient.

    The largest probability is never small, so its logarithm is exact, and the largest logit minus it is
    the log of the sum of all: log_softmax and an exp of it would pass over the table twice where softmax
    does once.
    """
    if selftest.used(logits_NV.device, logits_NV.dtype):
        from loraloom.lora.kernels.softmax import losses_in_place

        return losses_in_place(logits_NV, targets_N1, right_N)
    wide_NV = logits_NV
    if logits_NV.dtype != wide:
        # Widened first: softmax(dtype=...) takes a slow way on a CPU.
        wide_NV = _room(_block(logits_NV, wide), logits_NV.shape[1], wide, logits_NV.device)[
            : len(logits_NV)
        ].copy_(logits_NV)
    if right_N is not None:
        right_N.copy_(wide_NV.argmax(-1, keepdim=True).eq(targets_N1).squeeze(-1))
    top_N1 = wide_NV.amax(-1, keepdim=True)
    own_N1 = wide_NV.gather(-1, targets_N1)
    torch.softmax(wide_NV, -1, out=wide_NV)
    losses_N1 = top_N1 - wide_NV.amax(-1, keepdim=True).log() - own_N1
    if right_N is None:
        logits_NV.copy_(
            wide_NV.scatter_add_(-1, targets_N1, wide_NV.new_full((1, 1), -1.0).expand_as(targets_N1))
        )
    return losses_N1.squeeze(-1)


def token_losses(hidden_ND: Tensor, head: nn.Linear, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    """Losses [N] in nats and first choices that are right [N], of hidden states [N, D]
    under a frozen head."""
    kernel = frozen_kernel(head)
    assert kernel is not None
    chunk = chunk_rows(head.weight.shape[0], hidden_ND.device)
    return ChunkedCrossEntropy.apply(hidden_ND, kernel, targets_N, chunk)  # type: ignore[return-value]
