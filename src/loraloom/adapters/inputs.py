"""What the layers of a model read: second moments of their inputs, over all tokens of some rows."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from loraloom.adapters.form import Factor, Form
from loraloom.data.batches import Batch

Moments = dict[str, Tensor]
"""X X^T [D, D] in float32, X [D, N] being all inputs of a layer, by its path."""


@torch.no_grad()
def input_moments(
    model: nn.Module, form: Form, batches: Iterable[Batch], forward: Callable[[Batch], object]
) -> Moments:
    """Of every layer that an adapter changes, while the adapter is in force.

    Args:
        model: the base; the adapter is in its weights meanwhile.
        forward: lets the model read a batch.
    """
    found = {path: torch.zeros(2 * factor.a_RD.shape[1:]) for path, factor in form.factors.items()}

    def add(path: str, x_ND: Tensor) -> None:
        found[path].addmm_(x_ND.T, x_ND)

    with added(model, form):
        read_inputs(model, found, batches, forward, add)
    return found


@torch.no_grad()
def read_inputs(
    model: nn.Module,
    paths: Iterable[str],
    batches: Iterable[Batch],
    forward: Callable[[Batch], object],
    take: Callable[[str, Tensor], None],
) -> None:
    """Let the model read batches, and see what its layers read.

    Args:
        take: is given a layer's path and all its inputs in a batch, [N, D] in float32, without padding.
    """
    mask_BT = torch.ones(0, 0, dtype=torch.bool)

    def gather(path: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def seen(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            x = inputs[0].to(torch.float32)
            # a decoder beside an encoder has tokens of its own, and none of them is padding here
            take(path, x[mask_BT] if x.shape[:-1] == mask_BT.shape else x.flatten(0, -2))

        return seen

    handles = [model.get_submodule(path).register_forward_pre_hook(gather(path)) for path in paths]
    try:
        for batch in batches:
            mask_BT = batch.attention_mask
            forward(batch)
    finally:
        for handle in handles:
            handle.remove()


def moment_bytes(forms: Sequence[Form]) -> int:
    """What the moments of all adapters take."""
    return sum(4 * factor.a_RD.shape[1] ** 2 for form in forms for factor in form.factors.values())


@contextmanager
def added(model: nn.Module, form: Form) -> Generator[None]:
    """A model with an adapter's updates in its weights, and as it was afterwards."""
    kept: dict[str, Tensor] = {}
    try:
        for path, factor in form.factors.items():
            weight = _weight(model, path)
            kept[path] = weight.clone()
            weight.add_(_update(model, factor))
        yield
    finally:
        for path, before in kept.items():
            _weight(model, path).copy_(before)


def _weight(model: nn.Module, path: str) -> Tensor:
    return model.get_submodule(path).get_parameter("weight").detach()


def _update(model: nn.Module, factor: Factor) -> Tensor:
    is_conv = type(model.get_submodule(factor.path)).__name__ == "Conv1D"
    return factor.update(transposed=is_conv or factor.is_embedding)
