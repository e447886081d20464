"""The fused layer against its definition: gradients by finite differences, and the readable layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from loraloom.config.keys import RANGES
from loraloom.lora.deltas import LayerWeights
from loraloom.lora.dropout import keep_mask
from loraloom.lora.frozen import frozen_kernel
from loraloom.lora.layer import LoRALinear, lora_scale
from loraloom.lora.packed_layer import PackedLinear
from loraloom.lora.routing import Routing
from loraloom.lora.segment import Segment

D, OUT, NUMBER = 5, 4, 3


def weights_of(a: Tensor, b: Tensor, bias: Tensor | None, dropout: float = 0.0) -> LayerWeights:
    grad_bias = None if bias is None else torch.zeros_like(bias)
    return LayerWeights(a, b, torch.zeros_like(a), torch.zeros_like(b), 1.5, dropout, bias, grad_bias)


class Exposed(torch.autograd.Function):
    """`PackedLinear` with the gradients that it writes in place handed out, so that
    gradcheck sees them."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        layer: nn.Module,
        routing: Routing,
        fused: bool,
        dropout: float,
        *tensors: Tensor,
    ) -> Tensor:
        names = [segment.trial for segment in routing.segments]
        slots = {name: weights_of(*tensors[3 * k : 3 * k + 3], dropout) for k, name in enumerate(names)}
        with torch.enable_grad():
            inside = x.detach().requires_grad_()
            y_base = None if fused else layer(inside)
            anchor = torch.zeros((), requires_grad=True)
            kernel = frozen_kernel(layer) if fused else None
            y: Tensor = PackedLinear.apply(inside, y_base, anchor, kernel, routing, slots, NUMBER)  # type: ignore[assignment]
        ctx.kept = (inside, y, slots)
        return y.detach().clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        inside, y, slots = ctx.kept
        for weight in slots.values():
            for grad in (weight.grad_a_RD, weight.grad_b_OR, weight.grad_bias_O):
                grad.zero_()
        inside.grad = None
        torch.autograd.backward(y, grads[0], retain_graph=True)
        own = [grad for w in slots.values() for grad in (w.grad_a_RD, w.grad_b_OR, w.grad_bias_O)]
        return inside.grad, None, None, None, None, *(grad.clone() for grad in own)


@pytest.mark.parametrize("fused", [True, False], ids=["fused frozen layer", "frozen layer run as it is"])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("stops", [(2, 4), (1, 4), (3,)], ids=["stacked", "one by one", "alone"])
def test_gradients_are_those_of_finite_differences(
    stops: tuple[int, ...], dropout: float, fused: bool
) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(D, OUT).double().requires_grad_(False)
    starts = (0, *stops[:-1])
    segments = tuple(
        Segment(f"s{k}", start, stop, seed=k)
        for k, (start, stop) in enumerate(zip(starts, stops, strict=True))
    )
    tensors: list[Tensor] = []
    for k in range(len(stops)):
        r = 1 + k
        tensors += [torch.randn(r, D).double(), torch.randn(OUT, r).double(), torch.randn(OUT).double()]
    x = torch.randn(stops[-1], 3, D).double().requires_grad_()
    inputs = [tensor.requires_grad_() for tensor in tensors]
    routing = Routing(segments, training=True)
    assert torch.autograd.gradcheck(
        lambda x, *t: Exposed.apply(x, layer, routing, fused, dropout, *t), (x, *inputs)
    )  # type: ignore[arg-type]


@settings(max_examples=25)
@given(
    rows=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    ranks=st.lists(st.integers(1, 6), min_size=4, max_size=4),
    dropout=st.sampled_from([0.0, 0.25]),
    idle=st.booleans(),
)
def test_each_segment_is_the_readable_layer(
    rows: list[int], ranks: list[int], dropout: float, idle: bool
) -> None:
    """`idle`: the first segment has nothing in this layer."""
    torch.manual_seed(1)
    layer, tokens = nn.Linear(D, OUT).double().requires_grad_(False), 3
    stops = [sum(rows[: k + 1]) for k in range(len(rows))]
    segments = tuple(
        Segment(f"s{k}", stop - n, stop, seed=10 + k)
        for k, (stop, n) in enumerate(zip(stops, rows, strict=True))
    )
    twins, slots = [], {}
    for k, segment in enumerate(segments):
        twin = LoRALinear(layer, D, OUT, ranks[k], 3.0, dropout)
        nn.init.normal_(twin.lora_B)
        twins.append(twin)
        weight = weights_of(twin.lora_A.detach(), twin.lora_B.detach(), None, dropout)
        weight.scale = lora_scale(3.0, ranks[k])
        if not (idle and k == 0):
            slots[segment.trial] = weight
    x = torch.randn(stops[-1], tokens, D).double().requires_grad_()
    anchor = torch.zeros((), requires_grad=True)
    y: Tensor = PackedLinear.apply(
        x, None, anchor, frozen_kernel(layer), Routing(segments, True), slots, NUMBER
    )  # type: ignore[assignment]
    gy = torch.randn_like(y)
    y.backward(gy)
    for segment, twin, n in zip(segments, twins, rows, strict=True):
        part = slice(segment.start, segment.stop)
        own = x.detach()[part].requires_grad_()
        mask = keep_mask(n, tokens, D, dropout, segment.seed, NUMBER, own).view(own.shape) > 0
        expected = twin(own, mask if dropout else None) if segment.trial in slots else layer(own)
        expected.backward(gy[part])
        assert torch.allclose(y[part], expected, rtol=0, atol=1e-12)
        assert x.grad is not None and own.grad is not None
        assert torch.allclose(x.grad[part], own.grad, rtol=0, atol=1e-12)
        if segment.trial in slots:
            assert twin.lora_A.grad is not None and twin.lora_B.grad is not None
            assert torch.allclose(slots[segment.trial].grad_a_RD, twin.lora_A.grad, rtol=0, atol=1e-12)
            assert torch.allclose(slots[segment.trial].grad_b_OR, twin.lora_B.grad, rtol=0, atol=1e-12)


@given(
    rows=st.integers(1, 4),
    tokens=st.integers(1, 9),
    more=st.integers(0, 5),
    features=st.integers(1, 7),
    p=st.floats(0.01, 0.9),
    seed=st.integers(0, 2**62),
)
def test_a_mask_does_not_depend_on_how_far_neighbours_pad(
    rows: int, tokens: int, more: int, features: int, p: float, seed: int
) -> None:
    like = torch.empty(0, dtype=torch.float64)
    short = keep_mask(rows, tokens, features, p, seed, NUMBER, like).view(rows, tokens, features)
    long = keep_mask(rows, tokens + more, features, p, seed, NUMBER, like).view(
        rows, tokens + more, features
    )
    assert torch.equal(short, long[:, :tokens])
    assert set(short.unique().tolist()) <= {0.0, 65536 / (65536 - round(p * 65536))}


def test_a_mask_keeps_the_mean() -> None:
    mask = keep_mask(16, 64, 64, 0.3, 5, NUMBER, like=torch.empty(0))
    assert float(mask.mean()) == pytest.approx(1.0, abs=0.01)
    assert float((mask == 0).double().mean()) == pytest.approx(0.3, abs=0.01)


def test_the_most_that_may_be_dropped_leaves_something() -> None:
    most = RANGES["adapter.lora_dropout"].at_most
    assert most is not None
    mask = keep_mask(64, 64, 64, most, 5, NUMBER, like=torch.empty(0))
    assert mask.isfinite().all() and float(mask.mean()) == pytest.approx(1.0, abs=0.1)
