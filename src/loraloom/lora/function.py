"""The fast path of many adapters on one frozen layer: one autograd function, gradients written in place.

What is kept for the backward pass: x by reference, h = drop(x) A^T for each adapter, and the bits of
each dropout mask. Everything else is recomputed. Gradients of A and B go past autograd to the adapter's
arena: no per-tensor gradient is allocated and autograd does not see the adapters' weights at all.
`layer.LoRALinear` is the specification; the tests hold the two together in float64. What an adapter adds
to a layer is in `deltas`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from loraloom.lora.deltas import AdapterDelta, LayerWeights, OwnStack, StackedDeltas
from loraloom.lora.kernels.pack_deltas import KernelDeltas
from loraloom.lora.kernels.tables import PackTables
from loraloom.lora.pass_stack import PassStack


@dataclass(frozen=True)
class Segment:
    """The rows of one adapter in a micro-batch.

    Attributes:
        trial: whose rows these are.
        start, stop: rows [start, stop) of the batch.
        seed: seeds this micro-step's dropout masks, which go by the layer's number beside it.
    """

    trial: str
    start: int
    stop: int
    seed: int = 0


@dataclass(frozen=True)
class Routing:
    """Which rows belong to which adapter, for one forward pass and its backward pass.

    An empty `segments` is the bare base model. `training` switches dropout on. `stack` holds the
    candidates' A and B side by side, where they are alike; with `tables`, kernels do the candidates'
    part. `PackedModel.route` makes the one or the other.
    """

    segments: tuple[Segment, ...] = ()
    training: bool = False
    stack: PassStack | None = None
    tables: PackTables | None = None

    @cached_property
    def even(self) -> bool:
        """Whether the segments follow one another from row 0 with equally many rows:
        then they can be stacked."""
        size = self.segments[0].stop if self.segments else 0
        return all(s.start == k * size and s.stop == (k + 1) * size for k, s in enumerate(self.segments))

    def spans(self, tokens: int) -> Tensor:
        """The table of whose tokens are where, for layers that see so many tokens in a
        row: one copy to the device for all."""
        assert self.tables is not None
        if tokens not in self._spans:
            self._spans[tokens] = self.tables.spans(self.segments, tokens)
        return self._spans[tokens]

    def take_spans(self, spans: Mapping[int, Tensor]) -> None:
        """Use these tables, by tokens, where they would be made."""
        self._spans.update(spans)

    @cached_property
    def _spans(self) -> dict[int, Tensor]:
        return {}


BASE = Routing()


@dataclass(frozen=True)
class Frozen:
    """How to run a frozen dense layer: `forward` [N, D] -> new [N, O]; `backward` [N,
    O] -> new [N, D]."""

    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor], Tensor]


class PackedLinear(torch.autograd.Function):
    """y = frozen(x) + each segment's own delta.

    Inputs: x [B, T, D] (or [B, D]); `y_base` is the frozen layer's output when it can only be run by
    itself (a quantised layer), else None and `frozen` runs it; `anchor` is a scalar that requires a
    gradient, so that the function is recorded although no weight is an autograd input. Writes gradients
    into `LayerWeights.grad_*`.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        y_base: Tensor | None,
        anchor: Tensor,
        frozen: Frozen | None,
        routing: Routing,
        weights: dict[str, LayerWeights],
        number: int,
    ) -> Tensor:
        flat_ND = x.reshape(-1, x.shape[-1])
        if frozen is not None:
            y_NO = frozen.forward(flat_ND)
        else:
            assert y_base is not None
            y_NO = y_base.reshape(-1, y_base.shape[-1]).clone()
        tokens = flat_ND.shape[0] // x.shape[0]
        if routing.tables is not None:
            deltas = [KernelDeltas(routing, number, tokens, x.dtype)]
        else:
            deltas = _deltas(routing, weights, number, tokens)
        saved = [delta.forward(flat_ND, y_NO) for delta in deltas]
        ctx.save_for_backward(x, *saved)
        ctx.layer = (frozen, deltas, y_base is not None)
        # Not as a view: models add to a layer's output in place, which autograd refuses
        # on a view that a function made.
        return torch.ops.aten._unsafe_view(y_NO, (*x.shape[:-1], y_NO.shape[-1]))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        frozen, deltas, has_base = ctx.layer
        x, *saved = ctx.saved_tensors
        gy = grads[0]
        gy_NO = gy.reshape(-1, gy.shape[-1])
        flat_ND = x.reshape(-1, x.shape[-1])
        gx_ND = None
        if ctx.needs_input_grad[0]:
            gx_ND = frozen.backward(gy_NO) if frozen is not None else torch.zeros_like(flat_ND)
        for delta, h in zip(deltas, saved, strict=True):
            delta.backward(flat_ND, gy_NO, gx_ND, h)
        gx = None if gx_ND is None else gx_ND.view(x.shape)
        return gx, gy if has_base else None, None, None, None, None, None


def _deltas(
    routing: Routing, weights: dict[str, LayerWeights], number: int, tokens: int
) -> list[AdapterDelta | StackedDeltas]:
    """The segments that have an adapter in this layer: stacked if they are all alike in
    shape, else one by one."""
    active = [segment for segment in routing.segments if segment.trial in weights]
    deltas = [
        AdapterDelta(
            weights[segment.trial],
            slice(segment.start * tokens, segment.stop * tokens),
            segment.stop - segment.start,
            segment.seed if routing.training and weights[segment.trial].dropout > 0 else None,
            number,
        )
        for segment in active
    ]
    if len(deltas) < 2 or len(active) < len(routing.segments) or not routing.even:
        return list(deltas)
    stack = (
        OwnStack([delta.weight for delta in deltas])
        if routing.stack is None
        else routing.stack.layer(number)
    )
    return [StackedDeltas(deltas, stack)]
