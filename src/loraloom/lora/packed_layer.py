"""One layer of the frozen base with any number of candidates on it: run once for all
rows, finished row by row's owner.

A candidate that has nothing in a layer costs nothing there. Plain LoRA takes the fused way of
`function.py`; anything else is a `parts.Part`. A layer must see the batch's rows in its first dimension,
or rows and tokens flattened into it; anything else would give a candidate the rows of another, so it is
an error and never a guess.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from loraloom.errors import ModelError
from loraloom.lora.deltas import LayerWeights
from loraloom.lora.dropout import keep_mask
from loraloom.lora.frozen import FrozenWeight, frozen_kernel
from loraloom.lora.function import Frozen, PackedLinear, Routing, Segment
from loraloom.lora.parts import Drop, Part
from loraloom.lora.probe import Use

Args = tuple[Any, ...]
Kwargs = dict[str, Any]


class Route:
    """The one mutable cell that all wrapped layers of a model share.

    Args:
        shared: one cell for all threads: on CUDA the backward pass runs in another one. On a CPU it runs
            where it was called, and each thread may have a pass of its own.
    """

    def __init__(self, *, shared: bool = True) -> None:
        self._cell: Any = SimpleNamespace() if shared else threading.local()

    @property
    def current(self) -> Routing | None:
        return getattr(self._cell, "routing", None)

    @current.setter
    def current(self, routing: Routing | None) -> None:
        self._cell.routing = routing

    def get(self) -> Routing:
        if (current := self.current) is None:
            raise AssertionError("a packed layer was run outside `PackedModel.route`")
        return current

    @contextmanager
    def only(self, segment: Segment) -> Generator[None]:
        """Within, the batch is this segment's rows and no others."""
        whole = self.get()
        own = replace(segment, start=0, stop=segment.stop - segment.start)
        self.current = replace(whole, segments=(own,), stack=None)
        try:
            yield
        finally:
            self.current = whole


def split_by_candidate(module: nn.Module, use: Use, route: Route) -> None:
    """Make `module` run once for each candidate, on that candidate's rows; in place."""
    forward = module.forward

    def run(*args: Any, **kwargs: Any) -> Any:
        segments = route.get().segments
        if len(segments) < 2:
            return forward(*args, **kwargs)
        results: list[Any] = []
        for segment in segments:
            rows = slice(segment.start, segment.stop)
            own_args = [
                value[rows] if place in use.row_places else value for place, value in enumerate(args)
            ]
            own_kwargs = {
                name: value[rows] if name in use.row_places else value for name, value in kwargs.items()
            }
            with route.only(segment):
                results.append(forward(*own_args, **own_kwargs))
        if isinstance(results[0], Tensor):
            return torch.cat(results)
        return tuple(
            None if values[0] is None else torch.cat(values) for values in zip(*results, strict=True)
        )

    module.forward = run


class PackedLayer(nn.Module):
    """A frozen layer and what each trial has in it.

    Attributes:
        path: where the layer is in the model.
        adapters: A and B by trial, for the fused path.
        parts: what else finishes a trial's rows, in order.
        dropouts: the trial's dropout, for its parts.
        whole: a trial's own copy of the module, which then replaces it.
        rowless: some inputs carry no rows; see `split_by_candidate`.
        prepack: spend memory on a faster layout of the frozen weight.
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
        prepack: bool = True,
    ) -> None:
        super().__init__()
        self.base, self.path, self.number, self.rowless, self.prepack = (
            base,
            path,
            number,
            rowless,
            prepack,
        )
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
        return frozen_kernel(self.base, prepack=self.prepack)

    def owners(self, rows_N: Tensor) -> list[tuple[slice, nn.Module]] | None:
        """Which module each of the sorted rows (on the host) goes through, as (places
        in `rows_N`, module) in order.

        For those who apply the layer to some positions of a batch only. None: a candidate has more here
        than a module of its own, so that only `forward` will do.
        """
        found: list[tuple[slice, nn.Module]] = []
        for segment in self._shared[0].get().segments:
            if segment.trial in self.adapters or segment.trial in self.parts:
                return None
            start, stop = torch.searchsorted(
                rows_N, rows_N.new_tensor([segment.start, segment.stop])
            ).tolist()
            found.append((slice(start, stop), self.whole.get(segment.trial, self.base)))
        return found or [(slice(0, len(rows_N)), self.base)]

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        routing = self._shared[0].get()
        segments = routing.segments
        if not any(
            s.trial in self.adapters or s.trial in self.parts or s.trial in self.whole for s in segments
        ):
            return self.base(x, *args, **kwargs)
        x_rows, routing = self._by_rows(x, routing)
        segments = routing.segments
        if all(s.trial in self.whole for s in segments):
            y = torch.cat([self._replaced(s, x_rows, args, kwargs) for s in segments])
        else:
            y = self._together(x_rows, routing, args, kwargs)
            if any(s.trial in self.parts or s.trial in self.whole for s in segments):
                y = torch.cat(
                    [self._finished(s, x_rows, y, routing.training, args, kwargs) for s in segments]
                )
        return y if x_rows is x else y.flatten(0, 1)

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
        x_own, y_own = x[segment.start : segment.stop], y[segment.start : segment.stop]
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
        )

    def _dropout(self, segment: Segment, training: bool) -> Drop:
        p = self.dropouts.get(segment.trial, 0.0) if training else 0.0
        if p <= 0:
            return lambda x: x
        rows = segment.stop - segment.start

        def drop(x: Tensor) -> Tensor:
            tokens = x[0].numel() // x.shape[-1]
            return x * keep_mask(rows, tokens, x.shape[-1], p, segment.seed, self.number, x).view(
                x.shape
            )

        return drop

    def _by_rows(self, x: Tensor, routing: Routing) -> tuple[Tensor, Routing]:
        """x with the batch's rows first. What has no rows is its owner's, when there is only one."""
        rows = routing.segments[-1].stop
        if x.shape[0] == rows:
            return x, routing
        if self.rowless and len(routing.segments) == 1:
            return x, replace(
                routing, segments=(replace(routing.segments[0], stop=x.shape[0]),), stack=None
            )
        if not self.rowless and x.ndim == 2 and x.shape[0] % rows == 0:
            return x.view(rows, -1, x.shape[1]), routing
        raise ModelError(
            f"layer `{self.path}` does not see the batch's rows: its input is {tuple(x.shape)} for"
            f" {rows} rows",
            need="rows first, or rows and tokens flattened",
            next=(
                "take it out of `adapter.target_modules`, `adapter.modules_to_save` or `adapter.bias:"
                " all`"
            ),
        )


def linear_shape(layer: nn.Module) -> tuple[int, int]:
    """(features in, features out) of a linear layer; transformers' Conv1D keeps its
    weight transposed."""
    if hasattr(layer, "in_features"):
        return int(layer.in_features), int(layer.out_features)  # type: ignore[arg-type]
    if type(layer).__name__ == "Conv1D":
        d, o = layer.weight.shape  # type: ignore[union-attr]
        return int(d), int(o)
    raise ModelError(
        f"LoRA on a {type(layer).__name__} is not known", need="a linear layer or GPT-2's Conv1D"
    )


def dtype_of(layer: nn.Module, otherwise: torch.dtype) -> torch.dtype:
    """The type in which a layer multiplies: its weight's, or `otherwise` where the
    weight is quantised."""
    if isinstance(layer, FrozenWeight):
        return otherwise
    weight = getattr(layer, "weight", None)
    return weight.dtype if isinstance(weight, Tensor) and weight.is_floating_point() else otherwise


def dense_weight(layer: nn.Module) -> Tensor:
    """The frozen weight [O, D] of a linear layer; a quantised one is spread out anew at each call."""
    if type(layer).__name__ == "Conv1D":
        return layer.weight.T  # type: ignore[union-attr]
    return layer.dense() if isinstance(layer, FrozenWeight) else layer.weight  # type: ignore[return-value]
