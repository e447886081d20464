"""The kernels tried once on a device before a pack depends on them: they compile, they
run, they compute what their twins do.

A machine may have Triton and no C compiler, a driver that is older than its compiler, too little shared
memory, or a version of it that nobody has tried. Plain torch does the same there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loraloom.errors import first_line
from loraloom.lora.deltas import AdapterDelta, LayerWeights
from loraloom.lora.kernels import refusal
from loraloom.lora.kernels.pack_deltas import FEATURES, LEAST_RANKS, MOST_RANKS, KernelDeltas
from loraloom.lora.kernels.tables import PackTables
from loraloom.lora.routing import Routing
from loraloom.lora.segment import Segment

TOLERANCE = 0.05
"""Of a difference, relative to the largest number: rounding to 16 bits, or to TF32,
stays far below, and a fault does not."""
BETAS, EPS = (0.9, 0.999), 1e-8
SEGMENTS = (Segment("one", 0, 1, seed=1), Segment("two", 1, 3, seed=2))
TOKENS, NUMBER = 8, 1
"""Of each row, and of the layer."""

Draw = Callable[..., Tensor]
"""Random numbers of a shape on the device; `of`: their dtype."""
Result = tuple[str, Tensor, Tensor]
"""What it is, what the kernels computed, what their twin did."""


def used(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernels are used unless somebody says otherwise: on CUDA, where they
    can be and do what they should."""
    return device.type == "cuda" and (refusal(device, dtype) or fault(device, dtype)) is None


@cache
def fault(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why the kernels should not be used on a device that they do not refuse, in words that follow
    "because": they were tried there, once, and failed. None if they did not, and for any device but
    CUDA.

    Takes some seconds where nothing was ever compiled, and is asked once for each device and dtype.
    """
    if device.type != "cuda":
        return None
    try:
        for name, found, expected in _results(device, dtype):
            apart, size = float((found - expected).abs().max()), float(expected.abs().max())
            if not apart <= TOLERANCE * size:
                return (
                    f"their {name} are not those of plain torch here: {apart:.2g} apart, of {size:.2g}"
                )
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise  # of the device, which would do no better without them
    except Exception as error:
        # Whatever Triton, the compiler or the driver objects to: there is another way.
        return f"they could not be run here ({type(error).__name__}: {first_line(error)})"
    return None


def _results(device: torch.device, dtype: torch.dtype) -> Iterator[tuple[str, Tensor, Tensor]]:
    """What the kernels computed and what their twins did, on the host in float64."""
    numbers = torch.Generator().manual_seed(0)

    def draw(*shape: int, of: torch.dtype = dtype) -> Tensor:
        return torch.randn(shape, generator=numbers).to(device, of)

    for name, found, expected in chain(_deltas(draw), _losses(draw), _steps(draw)):
        yield name, found.cpu().double(), expected.cpu().double()


def _deltas(draw: Draw) -> Iterator[Result]:
    """Two candidates of unlike ranks, one with dropout, one with a bias; the largest
    blocks, which need most of a device."""
    x, gy, y, gx = (draw(TOKENS * SEGMENTS[-1].stop, FEATURES) for _ in range(4))
    most = LEAST_RANKS if x.dtype == torch.float32 else MOST_RANKS
    weights = {"one": _weights(draw, most, dropout=0.25), "two": _weights(draw, 8, bias=True)}
    twins = {trial: _own_gradients(weight) for trial, weight in weights.items()}
    expected_y, expected_gx = y.clone(), gx.clone()
    routing = Routing(
        SEGMENTS, training=True, tables=PackTables(list(weights), {NUMBER: weights}, x.device)
    )
    deltas = KernelDeltas(routing, NUMBER, TOKENS, x.dtype)
    deltas.backward(x, gy, gx, deltas.forward(x, y))
    for segment in SEGMENTS:
        weight, place = twins[segment.trial], slice(TOKENS * segment.start, TOKENS * segment.stop)
        delta = AdapterDelta(
            weight, place, segment.stop - segment.start, segment.seed if weight.dropout else None, NUMBER
        )
        delta.backward(x, gy, expected_gx, delta.forward(x, expected_y))
    yield "outputs", y, expected_y
    yield "gradients of inputs", gx, expected_gx
    for trial, twin in twins.items():
        yield "gradients of A", weights[trial].grad_a_RD, twin.grad_a_RD
        yield "gradients of B", weights[trial].grad_b_OR, twin.grad_b_OR


def _weights(draw: Draw, rank: int, *, dropout: float = 0.0, bias: bool = False) -> LayerWeights:
    wide = torch.float32
    return LayerWeights(
        draw(rank, FEATURES),
        draw(FEATURES, rank),
        draw(rank, FEATURES, of=wide),
        draw(FEATURES, rank, of=wide),
        0.5,
        dropout,
        draw(FEATURES, of=wide) if bias else None,
        draw(FEATURES, of=wide) if bias else None,
    )


def _own_gradients(weight: LayerWeights) -> LayerWeights:
    bias = weight.grad_bias_O
    return replace(
        weight,
        grad_a_RD=weight.grad_a_RD.clone(),
        grad_b_OR=weight.grad_b_OR.clone(),
        grad_bias_O=None if bias is None else bias.clone(),
    )


def _losses(draw: Draw) -> Iterator[Result]:
    from loraloom.lora.kernels.softmax import losses_in_place

    logits, targets = draw(2, 100), torch.tensor([3, 99])
    expected = logits.cpu().float().requires_grad_()
    losses = F.cross_entropy(expected, targets, reduction="none")
    losses.sum().backward()
    assert expected.grad is not None
    yield "losses", losses_in_place(logits, targets.to(logits.device), None), losses.detach()
    yield "gradients of logits", logits, expected.grad


def _steps(draw: Draw) -> Iterator[Result]:
    from loraloom.lora.kernels.adamw import Piece, step_pieces

    wide = torch.float32
    weights, grads, first, second = (
        draw(40, of=wide),
        draw(40, of=wide),
        draw(40, of=wide),
        draw(40, of=wide).abs(),
    )
    twin = nn.Parameter(weights.cpu())
    twin.grad = grads.cpu()
    optimizer = torch.optim.AdamW([twin], lr=0.1, betas=BETAS, eps=EPS, weight_decay=0.1)
    optimizer.state[twin] = {
        "step": torch.tensor(4.0),
        "exp_avg": first.cpu(),
        "exp_avg_sq": second.cpu(),
    }
    optimizer.step()
    step_pieces([Piece(weights, grads, first, second, None, 0.1, 0.1, 1.0, 5, finite=True)], BETAS, EPS)
    yield "steps", weights, twin.detach()
