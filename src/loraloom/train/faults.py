"""What can go wrong in a pass: memory that ran out, which is given back, and the layer
where numbers went bad."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from loraloom.lora.arena import Arena
from loraloom.lora.transfer import fetch

GROWTH = 10.0
"""A layer has run away when its largest output is this many times that of the frozen
base on the same rows."""


def free_memory(device: torch.device) -> None:
    """Give back what a failed pass left behind; call it outside the `except` block,
    which still holds the pass."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


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
