"""The modules of a frozen model, by path: as they came, and wrapped once a candidate
has something in them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from loraloom.errors import ModelError
from loraloom.lora.checkpointing import bring_weights
from loraloom.lora.packed_layer import PackedLayer
from loraloom.lora.probe import Use
from loraloom.lora.routing import Route


class ModuleTree:
    """Wraps modules of `model`, in place and each at most once.

    Args:
        uses: how the model calls each module that runs, by path (`probe.probe`).

    Attributes:
        originals: every module by its path in the model as it came.
        wrapped: the layers that a candidate has, or had, something in.
        numbers: of each module; dropout masks go by it.
        route: where wrapped layers look up whose rows are whose.
    """

    def __init__(self, model: nn.Module, uses: Mapping[str, Use]) -> None:
        device = next(model.parameters()).device
        self.uses = uses
        self.originals = dict(model.named_modules())
        self.numbers = {path: number for number, path in enumerate(self.originals)}
        self.wrapped: dict[str, PackedLayer] = {}
        self.route = Route(shared=device.type != "cpu")
        self._anchor = torch.zeros((), device=device, requires_grad=True)
        self._split: set[str] = set()

    def original(self, path: str) -> Any:
        """A module as it came; typed as anything, since layers of many kinds are asked
        for what they have."""
        return self.originals[path]

    def running(self) -> dict[str, nn.Module]:
        """Every module that runs, wrapped or not."""
        return {path: module for path, module in (self.originals | self.wrapped).items() if path}

    def wrap(self, path: str) -> PackedLayer:
        """The wrapped layer at a path, which is put into the model when it is first asked for.

        Raises:
            ModelError: the layer works on something that all rows share, in a part of the model that
                cannot be run for one candidate after another.
        """
        layer = self.wrapped.get(path)
        if layer is None:
            rowless = self.uses[path].rowless
            layer = PackedLayer(
                self.originals[path],
                path,
                self.numbers[path],
                self.route,
                self._anchor,
                rowless=rowless,
            )
            parent, _, name = path.rpartition(".")
            setattr(self.originals[parent], name, layer)
            self.wrapped[path] = layer
            if rowless:
                self._split_around(path)
        return layer

    def clear(self, trial: str) -> None:
        """Forget what a candidate has in any layer. Layers stay wrapped: empty, they cost nothing."""
        for layer in self.wrapped.values():
            layer.clear(trial)

    def pristine(self, path: str) -> nn.Module:
        """A copy of a module as the model came, whatever was wrapped inside it since."""
        # A deep copy takes what it is told to have copied already: for each wrapper, a
        # copy of what it wraps.
        memo: dict[int, Any] = {}
        for inside, layer in self.wrapped.items():
            if inside.startswith(f"{path}."):
                memo[id(layer)] = copy.deepcopy(layer.base, memo)
        bring_weights(self.originals[path])
        return copy.deepcopy(self.originals[path], memo)

    def _split_around(self, path: str) -> None:
        """Run the smallest module around a layer that has rows candidate by candidate:
        the layer then has one owner."""
        around = path
        while around and (around == path or around not in self.uses or self.uses[around].rowless):
            around = around.rpartition(".")[0]
        use = self.uses.get(around)
        if use is None or not use.row_results:
            raise ModelError(
                f"`{path}` works on something that all rows of a batch share: it would not know whose"
                " adapter to use",
                next="take it out of `adapter.target_modules` or `adapter.modules_to_save`",
            )
        if around not in self._split:
            _run_by_candidate(self.originals[around], use, self.route)
            self._split.add(around)


def _run_by_candidate(module: nn.Module, use: Use, route: Route) -> None:
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
