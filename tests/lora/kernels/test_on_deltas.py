"""What the kernels add to a layer, against `AdapterDelta`, one candidate after another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from loraloom.lora import dropout
from loraloom.lora.deltas import AdapterDelta, LayerWeights
from loraloom.lora.dropout import LEVELS, Mask
from loraloom.lora.kernels.pack_deltas import KernelDeltas
from loraloom.lora.kernels.tables import PackTables
from loraloom.lora.routing import Routing
from loraloom.lora.segment import Segment

NUMBER = 3
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 1e-2}


def weights_of(
    rank: int, d: int, o: int, dtype: torch.dtype, device: torch.device, **more: float
) -> LayerWeights:
    """Random ones, with gradients that are not zero: something was accumulated before."""
    draw = lambda *shape: torch.randn(*shape).to(device)  # noqa: E731
    a, b, bias = draw(rank, d).to(dtype), draw(o, rank).to(dtype), draw(o) if rank % 2 else None
    grad_bias = None if bias is None else draw(o)
    return LayerWeights(
        a,
        b,
        draw(rank, d),
        draw(o, rank),
        more.get("scale", 1.5),
        more.get("dropout", 0.0),
        bias,
        grad_bias,
    )


def with_own_gradients(weight: LayerWeights) -> LayerWeights:
    bias = weight.grad_bias_O
    return replace(
        weight,
        grad_a_RD=weight.grad_a_RD.clone(),
        grad_b_OR=weight.grad_b_OR.clone(),
        grad_bias_O=None if bias is None else bias.clone(),
    )


def gradients(weight: LayerWeights) -> list[Tensor]:
    return [
        grad for grad in (weight.grad_a_RD, weight.grad_b_OR, weight.grad_bias_O) if grad is not None
    ]


def segments_of(rows: list[int]) -> tuple[Segment, ...]:
    stops = np.cumsum(rows).tolist()
    return tuple(
        Segment(f"s{k}", stop - n, stop, seed=k + 2**40)
        for k, (stop, n) in enumerate(zip(stops, rows, strict=True))
    )


def routing_of(
    segments: tuple[Segment, ...], weights: dict[str, LayerWeights], device: torch.device
) -> Routing:
    tables = PackTables([segment.trial for segment in segments], {NUMBER: weights}, device)
    return Routing(segments, training=True, tables=tables)


def assert_close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    """Relative to the largest number."""
    assert float((found.double() - expected.double()).abs().max()) <= tolerance * float(
        expected.double().abs().max()
    )


@pytest.fixture(autouse=True)
def drawn_as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the deltas too, when the interpreter is on a CPU."""
    monkeypatch.setattr(dropout, "drawn_in_order", lambda device: False)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize(
    ("rows", "ranks", "tokens", "d", "o"),
    [
        ([1, 7, 2, 3], [4, 16, 1, 7], 5, 24, 40),
        ([1, 30, 2], [8, 0, 90], 5, 96, 136),
        ([2], [3], 1, 8, 200),
    ],
    ids=["all differ", "large ranks, one without", "one alone"],
)
def test_deltas_and_gradients_are_those_of_the_lanes(
    rows: list[int],
    ranks: list[int],
    tokens: int,
    d: int,
    o: int,
    dtype: torch.dtype,
    device: torch.device,
) -> None:
    torch.manual_seed(0)
    segments = segments_of(rows)
    weights = {
        segment.trial: weights_of(rank, d, o, dtype, device, scale=0.5 + rank, dropout=0.3 * (rank % 3))
        for segment, rank in zip(segments, ranks, strict=True)
        if rank
    }
    own = {slot: with_own_gradients(weight) for slot, weight in weights.items()}
    count = tokens * sum(rows)
    x, gy, y, gx = (torch.randn(count, width).to(device, dtype) for width in (d, o, o, d))
    expected_y, expected_gx = y.clone(), gx.clone()
    for segment in segments:
        if segment.trial in weights:
            place = slice(segment.start * tokens, segment.stop * tokens)
            seed = segment.seed if weights[segment.trial].dropout else None
            delta = AdapterDelta(
                weights[segment.trial], place, segment.stop - segment.start, seed, NUMBER
            )
            delta.backward(x, gy, expected_gx, delta.forward(x, expected_y))
    deltas = KernelDeltas(routing_of(segments, own, device), NUMBER, tokens, dtype)
    deltas.backward(x, gy, gx, deltas.forward(x, y))
    # A last bit of bfloat16 is 1/128, and the two round a sum of two products at different places.
    for found, expected in ((y, expected_y), (gx, expected_gx)):
        assert_close(found, expected, TOLERANCES[dtype] * (1 if dtype == torch.float32 else 2))
    for slot, weight in weights.items():
        for found, expected in zip(gradients(own[slot]), gradients(weight), strict=True):
            assert_close(found, expected, TOLERANCES[dtype])


def test_a_candidate_that_is_not_finite_leaves_its_neighbours(device: torch.device) -> None:
    torch.manual_seed(0)
    segments = segments_of([1, 2, 1])
    weights = {segment.trial: weights_of(5, 24, 40, torch.float32, device) for segment in segments}
    x, y = torch.randn(12, 24).to(device), torch.zeros(12, 40).to(device)
    x[3:9] = torch.nan
    deltas = KernelDeltas(routing_of(segments, weights, device), NUMBER, 3, torch.float32)
    deltas.backward(x, torch.ones_like(y), torch.zeros_like(x), deltas.forward(x, y))
    assert y[3:9].isnan().all() and y[:3].isfinite().all() and y[9:].isfinite().all()
    assert all(grad.isfinite().all() for slot in ("s0", "s2") for grad in gradients(weights[slot]))


# -- dropout
# -------------------------------------------------------------------------------------------------------


def kept(
    rows: list[int],
    tokens: int,
    d: int,
    dropouts: list[float],
    device: torch.device,
    seeds: list[int] | None = None,
) -> tuple[Tensor, ...]:
    """Of each candidate which inputs dropout keeps, [rows, tokens, d], read from the
    gradient that goes back through it."""
    segments = segments_of(rows)
    if seeds is not None:
        segments = tuple(
            replace(segment, seed=seed) for segment, seed in zip(segments, seeds, strict=True)
        )
    weights: dict[str, LayerWeights] = {}
    for segment, p in zip(segments, dropouts, strict=True):
        a, b = torch.ones(1, d, device=device), torch.ones(1, 1, device=device)
        weights[segment.trial] = LayerWeights(a, b, torch.zeros_like(a), torch.zeros_like(b), 1.0, p)
    count = tokens * sum(rows)
    x, y, gx = (
        torch.ones(count, d, device=device),
        torch.zeros(count, 1, device=device),
        torch.zeros(count, d, device=device),
    )
    deltas = KernelDeltas(routing_of(segments, weights, device), NUMBER, tokens, torch.float32)
    deltas.backward(x, torch.ones_like(y), gx, deltas.forward(x, y))
    # The same mask forwards, backwards and in the gradient of A.
    for segment, p in zip(segments, dropouts, strict=True):
        place, scale = (
            slice(segment.start * tokens, segment.stop * tokens),
            LEVELS / (LEVELS - round(p * LEVELS)),
        )
        assert_close(y[place, 0], scale * scale * (gx[place] / scale).sum(1) / scale, 1e-6)
        assert_close(weights[segment.trial].grad_a_RD[0], gx[place].sum(0), 1e-6)
    masks = (gx != 0).view(sum(rows), tokens, d)
    return tuple(masks[segment.start : segment.stop] for segment in segments)


def test_masks_are_those_of_any_gpu(device: torch.device) -> None:
    rows, tokens, d, p = 2, 3, 20, 0.25
    seed = 5 + (7 << 32)
    _, mask = kept([1, rows], tokens, d, [0.0, p], device, seeds=[0, seed])
    expected = Mask(rows, tokens, d, p, seed, NUMBER).fill(torch.empty(rows * tokens, d, device=device))
    assert torch.equal(mask.reshape(-1, d), expected > 0)


def test_a_mask_does_not_depend_on_neighbours_or_padding(device: torch.device) -> None:
    (alone,) = kept([2], 3, 40, [0.5], device, seeds=[11])
    _, beside, _ = kept([3, 2, 1], 5, 40, [0.1, 0.5, 0.0], device, seeds=[1, 11, 2])
    assert torch.equal(alone, beside[:, :3])


def test_as_much_is_dropped_as_was_asked_and_seeds_differ(device: torch.device) -> None:
    first, second, third = kept([8, 8, 8], 16, 64, [0.3, 0.3, 0.0], device, seeds=[1, 2, 3])
    assert third.all()
    for mask in (first, second):
        # 8,192 draws: the share has a standard error of 0.005.
        assert abs(float(mask.double().mean()) - 0.7) < 0.02
    agreement = float((first == second).double().mean())
    assert abs(agreement - (0.7 * 0.7 + 0.3 * 0.3)) < 0.03
