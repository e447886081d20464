"""AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) of any number of flat pieces in
one launch, each with its own values.

`train.optim.FlatOptimizer` has the readable twin: clip, torch's fused AdamW, gradients
to zero, copies brought up to date.
"""

# pyright: basic, reportMissingImports=false, reportIndexIssue=false, reportArgumentType=false, reportCallIssue=false
# Triton compiles what it reads here itself: its types are not Python's.

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from loraloom.lora.transfer import send

NUMBERS = 1024
"""Of a piece, that one program steps."""
ADDRESSES = tl.constexpr(6)
VALUES = tl.constexpr(5)


@dataclass(frozen=True)
class Piece:
    """A flat piece of a candidate's adapter, float32 throughout, and how it is stepped.

    Attributes:
        copy: where the new weights are written too, in another dtype, the same for all
            pieces of a launch.
        decay: what is taken off the weights for each unit of the rate.
        clip: what gradients are multiplied by.
        count: of this step, from 1.
        finite: the gradients are; else they are zeroed, nothing else happens, and the
            other values do not matter.
    """

    weights: Tensor
    grads: Tensor
    first_moments: Tensor
    second_moments: Tensor
    copy: Tensor | None
    rate: float
    decay: float
    clip: float
    count: int
    finite: bool


def step_pieces(pieces: Sequence[Piece], betas: tuple[float, float], eps: float) -> None:
    """Step all pieces in place; their gradients are zeroed."""
    device, copies = pieces[0].weights.device, [piece.copy for piece in pieces if piece.copy is not None]
    assert len({copy.dtype for copy in copies}) <= 1, "copies of one dtype"
    addresses = send(torch.tensor([_addresses(piece) for piece in pieces], dtype=torch.int64), device)
    values = send(
        torch.from_numpy(np.array([_values(piece, betas) for piece in pieces], np.float32)), device
    )
    grid = (triton.cdiv(max(piece.weights.numel() for piece in pieces), NUMBERS), len(pieces))
    with torch.cuda.device_of(pieces[0].weights):
        adamw[grid](
            addresses,
            values,
            copies[0] if copies else values,
            BETA1=betas[0],
            BETA2=betas[1],
            EPS=eps,
            COPIES=bool(copies),
            BLOCK=NUMBERS,
        )


def _addresses(piece: Piece) -> list[int]:
    tensors = (piece.weights, piece.grads, piece.first_moments, piece.second_moments, piece.copy)
    return [*(0 if tensor is None else tensor.data_ptr() for tensor in tensors), piece.weights.numel()]


def _values(piece: Piece, betas: tuple[float, float]) -> list[float]:
    """In float64: what is left of 1 - 0.999 in float32 has lost four digits."""
    if not piece.finite:
        return [0.0] * VALUES.value
    first, second = (1 - beta**piece.count for beta in betas)
    return [piece.rate / first, 1 - piece.rate * piece.decay, piece.clip, second**0.5, 1.0]


@triton.jit(do_not_specialize_on_alignment=["copy_ptr"])
def adamw(
    addresses_ptr,
    values_ptr,
    copy_ptr,
    BETA1: tl.constexpr,
    BETA2: tl.constexpr,
    EPS: tl.constexpr,
    COPIES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A program: BLOCK numbers of one piece. `copy_ptr` only says of which type the copies are."""
    addresses = addresses_ptr + tl.program_id(1) * ADDRESSES
    values = values_ptr + tl.program_id(1) * VALUES
    places = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = places < tl.load(addresses + 5)
    numbers = tl.pointer_type(tl.float32)
    grads = tl.load(addresses + 1).to(numbers) + places
    if tl.load(values + 4) > 0:
        weights = tl.load(addresses).to(numbers) + places
        firsts, seconds = (
            tl.load(addresses + 2).to(numbers) + places,
            tl.load(addresses + 3).to(numbers) + places,
        )
        step_size, kept, clip, root = (
            tl.load(values),
            tl.load(values + 1),
            tl.load(values + 2),
            tl.load(values + 3),
        )
        grad = tl.load(grads, live, 0.0) * clip
        first = BETA1 * tl.load(firsts, live, 0.0) + (1 - BETA1) * grad
        second = BETA2 * tl.load(seconds, live, 0.0) + (1 - BETA2) * grad * grad
        weight = kept * tl.load(weights, live, 0.0) - step_size * first / (tl.sqrt(second) / root + EPS)
        tl.store(weights, weight, live)
        tl.store(firsts, first, live)
        tl.store(seconds, second, live)
        if COPIES:
            copy = tl.load(addresses + 4)
            if copy != 0:
                tl.store(copy.to(copy_ptr.dtype) + places, weight.to(copy_ptr.dtype.element_ty), live)
    tl.store(grads, tl.zeros((BLOCK,), tl.float32), live)
