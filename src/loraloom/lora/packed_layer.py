"""One layer of the frozen base with any number of candidates on it: run once for all
rows, finished row by row's owner.

A candidate that has nothing in a layer costs nothing there. Plain LoRA takes the fused way,
`PackedLinear`; anything else is a `parts.Part`. A layer must see the batch's rows in its first
dimension, or rows and tokens flattened into it; anything else would give a candidate the rows of
another, so it is an error and never a guess.

The fused way is one autograd function, gradients written in place. What is kept for the backward pass: x
by reference, h = drop(x) A^T for each adapter, and the bits of each dropout mask. Everything else is
recomputed. Gradients of A and B go past autograd to the adapter's arena: no per-tensor gradient is
allocated and autograd does not see the adapters' weights at all. `layer.LoRALinear` is the
specification; the tests hold the two together in float64. What an adapter adds to a layer is in
`deltas`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from loraloom.errors import ModelError
from loraloom.lora.deltas import AdapterDelta, LayerWeights, OwnStack, StackedDeltas
from loraloom.lora.dropout import keep_mask
from loraloom.lora.frozen import Frozen, FrozenWeight, frozen_kernel
from loraloom.lora.kernels.pack_deltas import KernelDeltas
from loraloom.lora.parts import Dora, Drop, Part, share_norms, share_products
from loraloom.lora.routing import Route, Routing
from loraloom.lora.segment import Segment

Args = tuple[Any, ...]
Kwargs = dict[str, Any]


class PackedLayer(nn.Module):
    """A frozen layer and what each trial has in it.

    Attributes:
        path: where the layer is in the model.
        adapters: A and B by trial, for the fused path.
        parts: what else finishes a trial's rows, in order.
        dropouts: the trial's dropout, for its parts.
        whole: a trial's own copy of the module, which then replaces it.
        rowless: some inputs carry no rows; see `split_by_candidate`.
    """

    def __init__(
        self,
        base: nn.Module,
        path: str,
        number: int,
        route: Route,
        anchor: Tensor,
        *,
        rowless: bool = False,
    ) -> None:
        super().__init__()
        self.base, self.path, self.number, self.rowless = base, path, number, rowless
        self.adapters: dict[str, LayerWeights] = {}
        self.parts: dict[str, list[Part]] = {}
        self.dropouts: dict[str, float] = {}
        self.whole: dict[str, nn.Module] = {}
        self._shared = (route, anchor)

    def __getattr__(self, name: str) -> Any:
        """What models ask of their layers (`weight`, `out_features`, `embed_scale`) is
        the frozen layer's."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base"), name)

    def clear(self, trial: str) -> None:
        """Forget a trial."""
        for table in (self.adapters, self.parts, self.dropouts, self.whole):
            table.pop(trial, None)

    @cached_property
    def _kernel(self) -> Frozen | None:
        """Made when the layer first carries LoRA: it may cost memory."""
        return frozen_kernel(self.base)

    def owners(self, rows_N: Tensor) -> list[tuple[slice, nn.Module]] | None:
        """Which module each of the sorted rows (on the host) goes through, as (places in `rows_N`,
        module) in order.

        For those who apply the layer to some positions of a batch only. None: a candidate has more here
        than a module of its own, so that only `forward` will do.
        """
        found: list[tuple[slice, nn.Module]] = []
        for segment in self._shared[0].get().segments:
            if segment.trial in self.adapters or segment.trial in self.parts:
                return None
            ends = rows_N.new_tensor([segment.start, segment.stop])
            start, stop = torch.searchsorted(rows_N, ends).tolist()
            found.append((slice(start, stop), self.whole.get(segment.trial, self.base)))
        return found or [(slice(0, len(rows_N)), self.base)]

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        routing = self._shared[0].get()
        trials = [segment.trial for segment in routing.segments]
        if not any(trial in self.adapters or self._has_more(trial) for trial in trials):
            return self.base(x, *args, **kwargs)
        x_rows, routing = self._by_rows(x, routing)
        segments = routing.segments
        if all(trial in self.whole for trial in trials):
            # Nobody needs the frozen layer.
            y = torch.cat([self._replaced(s, x_rows, args, kwargs) for s in segments])
        else:
            y = self._together(x_rows, routing, args, kwargs)
            if any(self._has_more(trial) for trial in trials):
                training = routing.training
                self._share(x_rows, segments, training)
                y = torch.cat([self._finished(s, x_rows, y, training, args, kwargs) for s in segments])
        return y if x_rows is x else y.flatten(0, 1)

    def _has_more(self, trial: str) -> bool:
        """Whether a candidate has more than plain LoRA here."""
        return trial in self.parts or trial in self.whole

    def _doras(self, segment: Segment) -> list[Dora]:
        return [part for part in self.parts.get(segment.trial, ()) if isinstance(part, Dora)]

    def _share(self, x: Tensor, segments: Sequence[Segment], training: bool) -> None:
        """What all candidates with DoRA ask of the frozen weight, asked once."""
        doras = [(segment, part) for segment in segments for part in self._doras(segment)]
        share_norms([part for _, part in doras])
        wet = [(s, part) for s, part in doras if training and self.dropouts.get(s.trial, 0.0) > 0]
        dropped = [self._dropout(s, training)(x[s.start : s.stop]) for s, _ in wet]
        share_products([part for _, part in wet], dropped)

    def _together(self, x: Tensor, routing: Routing, args: Args, kwargs: Kwargs) -> Tensor:
        """Frozen layer and plain LoRA for all rows."""
        if not any(segment.trial in self.adapters for segment in routing.segments):
            return self.base(x, *args, **kwargs)
        kernel = self._kernel
        y_base = self.base(x) if kernel is None else None
        return PackedLinear.apply(
            x, y_base, self._shared[1], kernel, routing, self.adapters, self.number
        )  # type: ignore[return-value]

    def _finished(
        self, segment: Segment, x: Tensor, y: Tensor, training: bool, args: Args, kwargs: Kwargs
    ) -> Tensor:
        if segment.trial in self.whole:
            return self._replaced(segment, x, args, kwargs)
        x_own = x[segment.start : segment.stop]
        y_own = y[segment.start : segment.stop]
        drop = self._dropout(segment, training)
        for part in self.parts.get(segment.trial, ()):
            y_own = part(x_own, y_own, drop)
        return y_own

    def _replaced(self, segment: Segment, x: Tensor, args: Args, kwargs: Kwargs) -> Tensor:
        y = self.whole[segment.trial](x[segment.start : segment.stop], *args, **kwargs)
        if isinstance(y, Tensor) and not any(
            isinstance(value, Tensor) for value in (*args, *kwargs.values())
        ):
            return y
        raise ModelError(
            f"`adapter.modules_to_save` names `{self.path}`, whose rows cannot be handed to one"
            " candidate each",
            need="a module that takes one tensor and gives one",
            next="name a module inside it, or leave it out",
        )

    def _dropout(self, segment: Segment, training: bool) -> Drop:
        p = self.dropouts.get(segment.trial, 0.0) if training else 0.0
        if p <= 0:
            return lambda x: x
        rows = segment.stop - segment.start

        def drop(x: Tensor) -> Tensor:
            tokens = x[0].numel() // x.shape[-1]
            keep = keep_mask(rows, tokens, x.shape[-1], p, segment.seed, self.number, x)
            return x * keep.view(x.shape)

        return drop

    def _by_rows(self, x: Tensor, routing: Routing) -> tuple[Tensor, Routing]:
        """x with the batch's rows first. What has no rows is its owner's, when there is only one."""
        rows = routing.segments[-1].stop
        if x.shape[0] == rows:
            return x, routing
        if self.rowless and len(routing.segments) == 1:
            (only,) = routing.segments
            return x, replace(routing, segments=(replace(only, stop=x.shape[0]),), stack=None)
        if not self.rowless and x.ndim == 2 and x.shape[0] % rows == 0:
            return x.view(rows, -1, x.shape[1]), routing
        raise ModelError(
            f"layer `{self.path}` does not see the batch's rows: its input is {tuple(x.shape)} for"
            f" {rows} rows",
            need="rows first, or rows and tokens flattened",
            next="take it out of `adapter.target_modules`, `adapter.modules_to_save` or"
            " `adapter.bias: all`",
        )


class PackedLinear(torch.autograd.Function):
    """y = frozen(x) + each segment's own delta.

    Inputs: x [B, T, D] (or [B, D]); `y_base` is the frozen layer's output when only the layer itself can
    run it (`frozen_kernel` gives None), else None and `frozen` runs it; `anchor` is a scalar that
    requires a gradient, so that the function is recorded although no weight is an autograd input. Writes
    gradients into `LayerWeights.grad_*`.
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
        # Not as a view: models add to a layer's output in place, which autograd refuses on a view that a
        # function made.
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


def linear_shape(layer: nn.Module) -> tuple[int, int]:
    """(features in, features out) of a linear layer; transformers' Conv1D keeps its
    weight transposed."""
    if hasattr(layer, "in_features"):
        return int(layer.in_features), int(layer.out_features)  # type: ignore[arg-type]
    if type(layer).__name__ == "Conv1D":
        d, o = layer.weight.shape  # type: ignore[union-attr]
        return int(d), int(o)
    raise ModelError(
        f"LoRA on a {type(layer).__name__} is not known",
        need="a linear layer or GPT-2's Conv1D",
        next="leave it out of `adapter.target_modules`",
    )


def dtype_of(layer: nn.Module, otherwise: torch.dtype) -> torch.dtype:
    """The type in which a layer multiplies: its weight's, or `otherwise` where the
    weight is quantised."""
    if isinstance(layer, FrozenWeight):
        return otherwise
    weight = getattr(layer, "weight", None)
    return weight.dtype if isinstance(weight, Tensor) and weight.is_floating_point() else otherwise
