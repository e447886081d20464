"""What candidates add to a frozen layer, all of them at once: three Triton kernels,
used forwards and backwards.

`deltas.AdapterDelta` says what is computed, one candidate after another. In its letters:

    shrink        h = (x*m) A^T            g = c gy B
    expand        y += c h B^T             dx += m * (g A)
    accumulate    dA += g^T (x*m)          dB += c gy^T h

One program works on some tokens of one candidate. Whose they are, and where A, B and their gradients
lie, it reads in `tables`: ranks, numbers of rows and targets may differ as they like, it stays one
launch.

So each kernel has two sides: next to A it drops inputs, next to B it scales with c.

Letters: N tokens, F features (D in or O out), R ranks of one block, W the width of h: the largest rank
in whole blocks. Products are summed in float32. Weights of A are [R, F]; those of B [F, R].
"""

# pyright: basic, reportMissingImports=false
# Triton compiles what it reads here itself: its types are not Python's.

from typing import Any

import triton
import triton.language as tl

from loraloom.lora import dropout, philox
from loraloom.lora.kernels import tables

A = tl.constexpr(tables.A)
B = tl.constexpr(tables.B)
BIAS = tl.constexpr(tables.BIAS)
GRAD_A = tl.constexpr(tables.GRAD_A)
GRAD_B = tl.constexpr(tables.GRAD_B)
GRAD_BIAS = tl.constexpr(tables.GRAD_BIAS)
RANK = tl.constexpr(tables.RANK)
SCALE = tl.constexpr(tables.SCALE)
THRESHOLD = tl.constexpr(tables.THRESHOLD)
FIELDS = tl.constexpr(tables.FIELDS)
CANDIDATE = tl.constexpr(tables.CANDIDATE)
FIRST = tl.constexpr(tables.FIRST)
STOP = tl.constexpr(tables.STOP)
ORIGIN = tl.constexpr(tables.ORIGIN)
SEED = tl.constexpr(tables.SEED)
SPAN_FIELDS = tl.constexpr(tables.SPAN_FIELDS)
LEVELS = tl.constexpr(dropout.LEVELS)
ROUNDS = tl.constexpr(philox.ROUNDS)

ALIKE: Any = {
    "do_not_specialize": ["row_tokens", "layer"],
    "do_not_specialize_on_alignment": ["table_ptr", "spans_ptr"],
}
"""What a kernel is not compiled anew for."""
PRECISION = tl.constexpr("ieee")
"""Of float32 products: torch's own default."""


@triton.jit
def _address(own, COLUMN: tl.constexpr, like, ALIGNED: tl.constexpr):
    """A pointer from the candidate's row of the table, of the type of `like`."""
    pointer = tl.load(own + COLUMN).to(like)
    return tl.multiple_of(pointer, 16) if ALIGNED else pointer


@triton.jit
def _rank(own, ALIGNED: tl.constexpr):
    rank = tl.load(own + RANK).to(tl.int32)
    return tl.multiple_of(rank, 8) if ALIGNED else rank


@triton.jit
def _scale(own, DROPS: tl.constexpr):
    """Of the adapter and of its dropout."""
    scale = tl.load(own + SCALE).to(tl.int32).to(tl.float32, bitcast=True)
    if DROPS:
        scale *= LEVELS / (LEVELS - tl.load(own + THRESHOLD).to(tl.float32))
    return scale


@triton.jit
def _places(ranks, features, rank, F: tl.constexpr, IS_A: tl.constexpr):
    """Of weights in A [R, F], or in B [F, R]."""
    return ranks * F + features if IS_A else features * rank + ranks


@triton.jit
def _kept(span, own, tokens_N, first_feature, row_tokens, layer, N: tl.constexpr, F: tl.constexpr):
    """Which inputs dropout keeps [N, F], from a multiple of 8 features on: the same as
    `dropout.Mask` on any GPU.

    One call of Philox is eight draws: word w of its four has those of features 2w and 2w + 1.
    """
    low, high = (
        tl.load(span + SEED).to(tl.uint32, bitcast=True),
        tl.load(span + SEED + 1).to(tl.uint32, bitcast=True),
    )
    seed = low.to(tl.uint64) | (high.to(tl.uint64) << 32)
    own_N = tokens_N - tl.load(span + ORIGIN)
    groups = first_feature // 8 + tl.arange(0, F // 8)
    zero = tl.zeros((N, F // 8), tl.int32)
    places, rows = zero + (own_N % row_tokens)[:, None], zero + (own_N // row_tokens)[:, None]
    w0, w1, w2, w3 = tl.philox(seed, zero + groups[None, :], places, rows, zero + layer, ROUNDS)
    # Joining interleaves: the last join gives the last bit of a feature's number.
    low = tl.join(tl.join(w0 & 0xFFFF, w2 & 0xFFFF), tl.join(w1 & 0xFFFF, w3 & 0xFFFF))
    high = tl.join(tl.join(w0 >> 16, w2 >> 16), tl.join(w1 >> 16, w3 >> 16))
    draws = tl.reshape(tl.join(low, high), (N, F)).to(tl.int32)
    return draws >= tl.load(own + THRESHOLD).to(tl.int32)


@triton.jit(**ALIKE)
def shrink(
    x_ptr,
    h_ptr,
    table_ptr,
    spans_ptr,
    row_tokens,
    layer,
    F: tl.constexpr,
    W: tl.constexpr,
    IS_A: tl.constexpr,
    DROPS: tl.constexpr,
    ALIGNED: tl.constexpr,
    WIDEN: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_F: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    """h [N, W] = x [N, F] times A^T or B. A program: one tile of tokens, one block of ranks."""
    span = spans_ptr + tl.program_id(0) * SPAN_FIELDS
    own = table_ptr + tl.load(span + CANDIDATE) * FIELDS
    rank, first_rank = _rank(own, ALIGNED), tl.program_id(1) * BLOCK_R
    if first_rank >= rank:
        return
    weight = _address(own, A if IS_A else B, x_ptr.dtype, ALIGNED)
    tokens_N = tl.load(span + FIRST) + tl.arange(0, BLOCK_N)
    ranks_R = first_rank + tl.arange(0, BLOCK_R)
    live_N, live_R = tokens_N < tl.load(span + STOP), ranks_R < rank
    x_rows = x_ptr + tokens_N[:, None].to(tl.int64) * F
    h_NR = tl.zeros((BLOCK_N, BLOCK_R), tl.float32)
    for first in range(0, F, BLOCK_F):
        features_F = first + tl.arange(0, BLOCK_F)
        live_F = features_F < F
        x_NF = tl.load(x_rows + features_F[None, :], live_N[:, None] & live_F[None, :], 0.0)
        if IS_A and DROPS:
            x_NF = tl.where(
                _kept(span, own, tokens_N, first, row_tokens, layer, BLOCK_N, BLOCK_F), x_NF, 0.0
            )
        places_FR = _places(ranks_R[None, :], features_F[:, None], rank, F, IS_A)
        w_FR = tl.load(weight + places_FR, live_F[:, None] & live_R[None, :], 0.0)
        if WIDEN:
            x_NF, w_FR = x_NF.to(tl.float32), w_FR.to(tl.float32)
        h_NR = tl.dot(x_NF, w_FR, h_NR, input_precision=PRECISION)
    if not IS_A:
        h_NR *= _scale(own, DROPS)
    h_rows = h_ptr + tokens_N[:, None].to(tl.int64) * W
    tl.store(
        h_rows + ranks_R[None, :], h_NR.to(h_ptr.dtype.element_ty), live_N[:, None] & live_R[None, :]
    )


@triton.jit(**ALIKE)
def expand(
    h_ptr,
    y_ptr,
    table_ptr,
    spans_ptr,
    row_tokens,
    layer,
    F: tl.constexpr,
    W: tl.constexpr,
    IS_A: tl.constexpr,
    DROPS: tl.constexpr,
    BIASED: tl.constexpr,
    ALIGNED: tl.constexpr,
    WIDEN: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_F: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    """y [N, F] += h [N, W] times B^T or A, and the candidate's own bias. A program: one tile of tokens,
    one block of features."""
    span = spans_ptr + tl.program_id(0) * SPAN_FIELDS
    own = table_ptr + tl.load(span + CANDIDATE) * FIELDS
    rank, first = _rank(own, ALIGNED), tl.program_id(1) * BLOCK_F
    if rank == 0:
        return
    weight = _address(own, A if IS_A else B, y_ptr.dtype, ALIGNED)
    tokens_N = tl.load(span + FIRST) + tl.arange(0, BLOCK_N)
    features_F = first + tl.arange(0, BLOCK_F)
    live_N, live_F = tokens_N < tl.load(span + STOP), features_F < F
    h_rows = h_ptr + tokens_N[:, None].to(tl.int64) * W
    delta_NF = tl.zeros((BLOCK_N, BLOCK_F), tl.float32)
    for first_rank in range(0, W, BLOCK_R):
        ranks_R = first_rank + tl.arange(0, BLOCK_R)
        live_R = ranks_R < rank
        h_NR = tl.load(h_rows + ranks_R[None, :], live_N[:, None] & live_R[None, :], 0.0)
        places_RF = _places(ranks_R[:, None], features_F[None, :], rank, F, IS_A)
        w_RF = tl.load(weight + places_RF, live_R[:, None] & live_F[None, :], 0.0)
        if WIDEN:
            h_NR, w_RF = h_NR.to(tl.float32), w_RF.to(tl.float32)
        delta_NF = tl.dot(h_NR, w_RF, delta_NF, input_precision=PRECISION)
    if not IS_A:
        delta_NF *= _scale(own, DROPS)
    elif DROPS:
        delta_NF = tl.where(
            _kept(span, own, tokens_N, first, row_tokens, layer, BLOCK_N, BLOCK_F), delta_NF, 0.0
        )
    if BIASED:
        bias = tl.load(own + BIAS)
        if bias != 0:
            delta_NF += tl.load(bias.to(tl.pointer_type(tl.float32)) + features_F, live_F, 0.0)[None, :]
    y_places = y_ptr + tokens_N[:, None].to(tl.int64) * F + features_F[None, :]
    live_NF = live_N[:, None] & live_F[None, :]
    y_NF = tl.load(y_places, live_NF, 0.0).to(tl.float32) + delta_NF
    tl.store(y_places, y_NF.to(y_ptr.dtype.element_ty), live_NF)


@triton.jit(**ALIKE)
def accumulate(
    h_ptr,
    x_ptr,
    table_ptr,
    spans_ptr,
    row_tokens,
    layer,
    F: tl.constexpr,
    W: tl.constexpr,
    IS_A: tl.constexpr,
    DROPS: tl.constexpr,
    BIASED: tl.constexpr,
    ALIGNED: tl.constexpr,
    WIDEN: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_F: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    """Gradient of A or B += x [N, F] times h [N, W] over a candidate's tokens; the
    bias's is the sum of x.

    A program: one block of features, one candidate, one block of ranks. It alone adds to its place,
    always in one order: the same run gives the same bits.
    """
    span = spans_ptr + tl.program_id(1) * SPAN_FIELDS
    own = table_ptr + tl.load(span + CANDIDATE) * FIELDS
    rank, first, first_rank = _rank(own, ALIGNED), tl.program_id(0) * BLOCK_F, tl.program_id(2) * BLOCK_R
    if first_rank >= rank:
        return
    features_F, ranks_R = first + tl.arange(0, BLOCK_F), first_rank + tl.arange(0, BLOCK_R)
    live_F, live_R = features_F < F, ranks_R < rank
    stop = tl.load(span + STOP)
    grad_FR = tl.zeros((BLOCK_F, BLOCK_R), tl.float32)
    sum_F = tl.zeros((BLOCK_F,), tl.float32)
    for start in range(tl.load(span + FIRST), stop, BLOCK_N):
        tokens_N = start + tl.arange(0, BLOCK_N)
        live_N = tokens_N < stop
        x_places = x_ptr + tokens_N[:, None].to(tl.int64) * F + features_F[None, :]
        x_NF = tl.load(x_places, live_N[:, None] & live_F[None, :], 0.0)
        h_places = h_ptr + tokens_N[:, None].to(tl.int64) * W + ranks_R[None, :]
        h_NR = tl.load(h_places, live_N[:, None] & live_R[None, :], 0.0)
        if IS_A and DROPS:
            x_NF = tl.where(
                _kept(span, own, tokens_N, first, row_tokens, layer, BLOCK_N, BLOCK_F), x_NF, 0.0
            )
        if BIASED:
            sum_F += tl.sum(x_NF.to(tl.float32), 0)
        if WIDEN:
            x_NF, h_NR = x_NF.to(tl.float32), h_NR.to(tl.float32)
        grad_FR = tl.dot(tl.trans(x_NF), h_NR, grad_FR, input_precision=PRECISION)
    if not IS_A:
        grad_FR *= _scale(own, DROPS)
    places_FR = _places(ranks_R[None, :], features_F[:, None], rank, F, IS_A)
    grads = _address(own, GRAD_A if IS_A else GRAD_B, tl.pointer_type(tl.float32), ALIGNED) + places_FR
    live_FR = live_F[:, None] & live_R[None, :]
    tl.store(grads, tl.load(grads, live_FR, 0.0) + grad_FR, live_FR)
    if BIASED:
        grad_bias = tl.load(own + GRAD_BIAS)
        if (grad_bias != 0) & (first_rank == 0):
            sums = grad_bias.to(tl.pointer_type(tl.float32)) + features_F
            tl.store(sums, tl.load(sums, live_F, 0.0) + sum_F, live_F)
