"""When a candidate has diverged, and the layer in which its numbers went bad."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from loraloom.data.rows import Example
from loraloom.evals.objective import Objective
from loraloom.lora.arena import Arena
from loraloom.lora.neftune import noisy_embeddings
from loraloom.lora.packed import PackedModel
from loraloom.lora.routing import BASE, Routing
from loraloom.lora.transfer import fetch
from loraloom.records import Task
from loraloom.train.seat import Pass, Seat, assemble

NONFINITE_LIMIT = 2
"""A candidate whose loss or gradient was not finite this often has diverged."""
WILD_FACTOR = 3.0
WILD_LIMIT = 5
"""So has one whose loss was `WILD_FACTOR` times its first, and worse than guessing, in this many windows
in a row."""

GROWTH = 10.0
"""A layer has run away when its largest output is this many times that of the frozen base on the same
rows."""


class DivergenceWatch:
    """Judges the windows of a pack's candidates.

    Args:
        rows: the training rows.
    """

    def __init__(
        self,
        packed: PackedModel,
        objective: Objective,
        rows: Sequence[Example],
        *,
        pad_id: int,
        task: Task,
    ) -> None:
        self.packed = packed
        self.objective = objective
        self.rows = rows
        self.pad_id = pad_id
        self.task: Task = task

    def judge(self, seat: Seat, loss: float, norm: float) -> str | None:
        """Keep count of losses and gradients gone wrong; the layer to blame, in a bad window.

        Args:
            loss: of the whole window, whose gradients still lie in the arena.
            norm: of its gradient.
        """
        if not (math.isfinite(norm) and math.isfinite(loss)):
            seat.nonfinite += 1
        else:
            if seat.first_loss is None or seat.smoothed_loss is None:
                seat.first_loss = seat.smoothed_loss = loss
            else:
                seat.smoothed_loss = 0.9 * seat.smoothed_loss + 0.1 * loss
            is_wild = loss > max(WILD_FACTOR * seat.first_loss, self.objective.chance)
            seat.wild = seat.wild + 1 if is_wild else 0
            if seat.wild < WILD_LIMIT:
                return None
        # Only once: it runs the window again, and the first fault is the one that tells.
        seat.bad_layer = seat.bad_layer or self.bad_layer(seat)
        return seat.bad_layer

    def bad_layer(self, seat: Seat) -> str | None:
        """The layer to blame for a bad window, found by running its passes again, this candidate alone.

        The first layer whose output was not finite; else the last one whose gradient was not; else the
        first whose output has grown far beyond the frozen base's.
        """
        layers = self.packed.layers()
        grown: str | None = None
        for micro, rows in enumerate(seat.window):
            # As it was in that pass: the seeds of dropout and noise go by the number of the micro-batch.
            then = replace(seat, micro=micro)
            own, joined = {seat.id: rows}, self.objective.joined
            one = assemble([then], own, self.rows, self.pad_id, self.task, joined=joined)
            outputs = self._outputs(layers, one, one.routing)
            if bad := first_bad(outputs):
                return bad
            # A large output alone says nothing: the base's own may be as large.
            grown = grown or first_grown(outputs, self._outputs(layers, one, BASE))
        return last_bad_gradient(seat.adapter.arena, list(layers)) or grown

    def _outputs(self, layers: Mapping[str, nn.Module], one: Pass, routing: Routing) -> dict[str, float]:
        """The largest output of each layer, with the candidate or, routed so, without."""
        batch = one.batch.to(self.packed.device)
        with self.packed.route(routing) as model, noisy_embeddings(model, one.noises):
            return largest_outputs(layers, lambda: self.objective.rows(model, batch))


def has_diverged(seat: Seat) -> bool:
    """Whether a candidate is past saving; `Seat.bad_layer` says where it began."""
    return seat.nonfinite >= NONFINITE_LIMIT or seat.wild >= WILD_LIMIT


@torch.no_grad()
def largest_outputs(layers: Mapping[str, nn.Module], run: Callable[[], object]) -> dict[str, float]:
    """The largest absolute output of each layer in the order in which they end, NaN and
    infinity kept, of one `run`."""
    found: dict[str, list[Tensor]] = {}

    def note(path: str, output: Any) -> None:
        values = [t for t in _tensors(output) if t.is_floating_point() and t.numel()]
        if values and path not in found:
            found[path] = [t.detach().abs().max() for t in values]

    handles = [
        layer.register_forward_hook(lambda _layer, _inputs, output, path=path: note(path, output))
        for path, layer in layers.items()
    ]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    read = iter(fetch([size for sizes in found.values() for size in sizes]))
    return {
        path: float(torch.stack([next(read).double() for _ in sizes]).max())
        for path, sizes in found.items()
    }


def first_bad(outputs: Mapping[str, float]) -> str | None:
    """The first layer whose output was not finite."""
    return next((path for path, size in outputs.items() if not math.isfinite(size)), None)


def first_grown(outputs: Mapping[str, float], base: Mapping[str, float]) -> str | None:
    """The first layer whose output is `GROWTH` times the frozen base's."""
    return next(
        (path for path, size in outputs.items() if size > GROWTH * base.get(path, math.inf)), None
    )


def last_bad_gradient(arena: Arena, paths: Sequence[str]) -> str | None:
    """The layer nearest the loss whose gradient is not finite: where a backward pass
    first went bad. `paths` in order."""
    whole = fetch([torch.isfinite(arena.grad(entry)).all() for entry in arena.entries])
    bad = {entry.path for entry, fine in zip(arena.entries, whole, strict=True) if not fine}
    return next((path for path in reversed(paths) if path in bad), None)


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from _tensors(value)
    elif isinstance(output, tuple | list):
        for value in output:
            yield from _tensors(value)
