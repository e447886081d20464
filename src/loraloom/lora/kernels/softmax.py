"""Cross entropy of logits and its gradient in one pass over each row, as a Triton kernel.

`evals.cross_entropy` has the readable twin, which goes over the table several times.
"""

# pyright: basic, reportMissingImports=false, reportIndexIssue=false, reportArgumentType=false, reportCallIssue=false
# Triton compiles what it reads here itself: its types are not Python's.

import torch
import triton
import triton.language as tl
from torch import Tensor

LOGITS = 2048
"""That a program takes at a time."""


def losses_in_place(logits_NV: Tensor, targets_N: Tensor, right_N: Tensor | None) -> Tensor:
    """Losses [N] of logits [N, V]. Fills `right_N` where there is one, else turns the
    logits into their gradient."""
    assert logits_NV.is_contiguous() and targets_N.is_contiguous(), "read and written row by row"
    losses_N = torch.empty(len(logits_NV), dtype=torch.float32, device=logits_NV.device)
    with torch.cuda.device_of(logits_NV):
        cross_entropy[(len(logits_NV),)](
            logits_NV,
            targets_N,
            losses_N,
            losses_N if right_N is None else right_N,
            V=logits_NV.shape[1],
            TRAINS=right_N is None,
            BLOCK=LOGITS,
            num_warps=8,
        )
    return losses_N


@triton.jit
def cross_entropy(
    logits_ptr,
    targets_ptr,
    losses_ptr,
    right_ptr,
    V: tl.constexpr,
    TRAINS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """losses [N] = logsumexp(logits [N, V]) - logits at the targets [N]. A program: one row.

    TRAINS: the logits become the gradient of their row's loss, softmax - 1 at the target. Otherwise
    right [N] is 1 where the first of the largest logits is the target, else 0.
    """
    row = tl.program_id(0).to(tl.int64)
    logits = logits_ptr + row * V
    target = tl.load(targets_ptr + row)
    # Read before anything is written: the sums below bring all threads of the program
    # together in between.
    own = tl.load(logits + target).to(tl.float32)
    # Every lane keeps the largest of its logits, and the sum of their exponentials below that.
    tops = tl.full((BLOCK,), -3.0e38, tl.float32)
    sums = tl.zeros((BLOCK,), tl.float32)
    for first in range(0, V, BLOCK):
        places = first + tl.arange(0, BLOCK)
        found = tl.load(logits + places, places < V, float("-inf")).to(tl.float32)
        higher = tl.maximum(tops, found)
        sums = sums * tl.exp(tops - higher) + tl.exp(found - higher)
        tops = higher
    top = tl.max(tops, 0)
    total = top + tl.log(tl.sum(sums * tl.exp(tops - top), 0))
    tl.store(losses_ptr + row, total - own)
    chosen = tl.full((BLOCK,), V, tl.int32)
    for first in range(0, V, BLOCK):
        places = first + tl.arange(0, BLOCK)
        found = tl.load(logits + places, places < V, float("-inf")).to(tl.float32)
        if TRAINS:
            grads = tl.exp(found - total) - tl.where(places == target, 1.0, 0.0)
            tl.store(logits + places, grads.to(logits_ptr.dtype.element_ty), places < V)
        else:
            chosen = tl.minimum(chosen, tl.where(found == top, places, V))
    if not TRAINS:
        tl.store(right_ptr + row, (tl.min(chosen, 0) == target).to(tl.float32))
