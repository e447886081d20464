"""Parts of frozen blocks that torch does in many small kernels, each as one Triton
kernel, forwards and backwards.

    norm        y = w * x / rms(x), or (1 + w) * x / rms(x)
    gated       y = silu(gate) * up

Weights are frozen: no gradient of theirs is made. Sums are in float32; numbers are
rounded where the plain layers round.
"""

# pyright: basic, reportMissingImports=false, reportIndexIssue=false, reportArgumentType=false, reportCallIssue=false
# Triton compiles what it reads here itself: its types are not Python's.

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

NUMBERS = 2048
"""That a program takes at a time, at least."""


class Norm(torch.autograd.Function):
    """x [.., D], weight [D] -> [.., D]. `shifted`: times 1 + weight, all in float32;
    else the quotient is rounded first."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_D: Tensor, eps: float, shifted: bool) -> Tensor:
        x_ND = x.reshape(-1, x.shape[-1]).contiguous()
        y_ND = torch.empty_like(x_ND)
        _launch(norm, x_ND, weight_D, x_ND, y_ND, eps, SHIFTED=shifted, BACKWARD=False)
        ctx.save_for_backward(x_ND, weight_D)
        ctx.options = (eps, shifted)
        return y_ND.view(x.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x_ND, weight_D = ctx.saved_tensors
        eps, shifted = ctx.options
        gx_ND = torch.empty_like(x_ND)
        gy_ND = grads[0].reshape(x_ND.shape).contiguous()
        _launch(norm, x_ND, weight_D, gy_ND, gx_ND, eps, SHIFTED=shifted, BACKWARD=True)
        return gx_ND.view(grads[0].shape), None, None, None


class Gated(torch.autograd.Function):
    """gate and up [.., F] -> silu(gate) * up."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        gate, up = gate.contiguous(), up.contiguous()
        y = torch.empty_like(gate)
        _launch_flat(gated, gate, up, y)
        ctx.save_for_backward(gate, up)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        gate, up = ctx.saved_tensors
        gy, g_gate, g_up = grads[0].contiguous(), torch.empty_like(gate), torch.empty_like(up)
        _launch_flat(gated_backward, gate, up, gy, g_gate, g_up)
        return g_gate, g_up


def _launch(kernel: Any, x_ND: Tensor, weight_D: Tensor, *rest: Any, **options: Any) -> None:
    rows, width = x_ND.shape
    block = triton.next_power_of_2(width)
    many = max(1, NUMBERS // block)
    with torch.cuda.device_of(x_ND):
        kernel[(triton.cdiv(rows, many),)](
            x_ND,
            weight_D,
            *rest,
            rows,
            D=width,
            ROWS=many,
            BLOCK=block,
            num_warps=4 if block <= NUMBERS else 8,
            **options,
        )


def _launch_flat(kernel: Any, *tensors: Tensor) -> None:
    count = tensors[0].numel()
    with torch.cuda.device_of(tensors[0]):
        kernel[(triton.cdiv(count, NUMBERS),)](*tensors, count, BLOCK=NUMBERS)


@triton.jit(do_not_specialize=["rows"])
def norm(
    x_ptr,
    w_ptr,
    in_ptr,
    out_ptr,
    eps,
    rows,
    D: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    SHIFTED: tl.constexpr,
    BACKWARD: tl.constexpr,
):
    """A program: some rows. Forwards `out` is y. Backwards `in` is the gradient g of y, and with q = w g
    (all rows alone) out = (q - x mean(q x) / rms(x)^2) / rms(x)."""
    rows_N = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns_D = tl.arange(0, BLOCK)
    live_ND = (rows_N < rows)[:, None] & (columns_D < D)[None, :]
    places_ND = rows_N[:, None] * D + columns_D[None, :]
    x_ND = tl.load(x_ptr + places_ND, live_ND, 0.0).to(tl.float32)
    w_D = tl.load(w_ptr + columns_D, columns_D < D, 0.0).to(tl.float32)
    if SHIFTED:
        w_D += 1.0
    over_N = 1.0 / tl.sqrt(tl.sum(x_ND * x_ND, 1) / D + eps)
    kind = out_ptr.dtype.element_ty
    if BACKWARD:
        q_ND = tl.load(in_ptr + places_ND, live_ND, 0.0).to(tl.float32) * w_D[None, :]
        along_N = tl.sum(q_ND * x_ND, 1) / D * over_N * over_N
        out_ND = (q_ND - x_ND * along_N[:, None]) * over_N[:, None]
    else:
        out_ND = x_ND * over_N[:, None]
        if not SHIFTED:
            out_ND = out_ND.to(kind).to(tl.float32)
        out_ND *= w_D[None, :]
    tl.store(out_ptr + places_ND, out_ND.to(kind), live_ND)


@triton.jit(do_not_specialize=["count"])
def gated(gate_ptr, up_ptr, y_ptr, count, BLOCK: tl.constexpr):
    """A program: BLOCK numbers."""
    places = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = places < count
    kind = y_ptr.dtype.element_ty
    gate = tl.load(gate_ptr + places, live, 0.0).to(tl.float32)
    open_ = (gate * tl.sigmoid(gate)).to(kind).to(tl.float32)
    tl.store(y_ptr + places, (open_ * tl.load(up_ptr + places, live, 0.0).to(tl.float32)).to(kind), live)


@triton.jit(do_not_specialize=["count"])
def gated_backward(gate_ptr, up_ptr, gy_ptr, g_gate_ptr, g_up_ptr, count, BLOCK: tl.constexpr):
    """The same numbers' gradients."""
    places = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = places < count
    kind = g_up_ptr.dtype.element_ty
    gate = tl.load(gate_ptr + places, live, 0.0).to(tl.float32)
    up = tl.load(up_ptr + places, live, 0.0).to(tl.float32)
    gy = tl.load(gy_ptr + places, live, 0.0).to(tl.float32)
    share = tl.sigmoid(gate)
    tl.store(g_up_ptr + places, (gy * gate * share).to(kind), live)
    tl.store(g_gate_ptr + places, (gy * up * share * (1.0 + gate * (1.0 - share))).to(kind), live)
