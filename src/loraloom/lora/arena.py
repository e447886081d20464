"""One flat block of memory per adapter: every weight, gradient and moment of a
candidate lies in one row.

Parameters and gradients that the layers use are views into the block, so that an optimiser step, a norm,
a snapshot and a checkpoint are each one operation, whatever the number of modules. The block dies with
its candidate, so no state can leak into the next.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

Group = Literal["lora_A", "lora_B", "module", "vector"]
GROUPS: tuple[Group, ...] = ("lora_A", "lora_B", "module", "vector")
"""Order in the block: each group is one contiguous slice, so that LoRA+ rates and weight decay are
slices too. "module" holds the matrices of modules trained whole; "vector" all that is one-dimensional:
biases, the weights of norms, DoRA's magnitudes."""


BIAS_NAME = "base_layer.bias"
"""PEFT's name of a trained bias of an adapted layer; any other layer's is just "bias"."""


@dataclass(frozen=True)
class Entry:
    """One tensor of an adapter: `path` is the module's path in the base model, `name`
    its place below that.

    A `relative` tensor is kept as its difference from the frozen one, which the layer has already added.
    """

    path: str
    name: str
    group: Group
    shape: tuple[int, ...]
    relative: bool = False

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def key(self) -> str:
        return f"{self.path}.{self.name}"


class Arena:
    """Flat `weights` and `grads` (same dtype) with named views into both.

    Args:
        entries: the tensors, in any order; they are laid out group by group.
        dtype: of weights and gradients: float32, or float64 in proofs.
    """

    def __init__(self, entries: Sequence[Entry], dtype: torch.dtype, device: torch.device | str) -> None:
        self.entries = tuple(sorted(entries, key=lambda entry: GROUPS.index(entry.group)))
        self.weights = torch.zeros(
            sum(entry.numel for entry in self.entries), dtype=dtype, device=device
        )
        self.grads = torch.zeros_like(self.weights)
        self._offsets: dict[str, int] = {}
        offset = 0
        for entry in self.entries:
            self._offsets[entry.key] = offset
            offset += entry.numel

    def weight(self, entry: Entry) -> Tensor:
        return self.view(self.weights, entry)

    def grad(self, entry: Entry) -> Tensor:
        return self.view(self.grads, entry)

    def parameter(self, entry: Entry) -> nn.Parameter:
        """The tensor as a parameter of autograd, whose gradient arrives in the block."""
        parameter = nn.Parameter(self.weight(entry))
        parameter.grad = self.grad(entry)
        return parameter

    def offset(self, entry: Entry) -> int:
        """Where an entry begins."""
        return self._offsets[entry.key]

    def view(self, flat: Tensor, entry: Entry) -> Tensor:
        """An entry's place in any block laid out as this one: the weights, or a snapshot of them."""
        offset = self.offset(entry)
        return flat[offset : offset + entry.numel].view(entry.shape)

    def slices(self) -> Iterator[tuple[Group, slice]]:
        """The contiguous piece of each group that is not empty."""
        offset = 0
        for group in GROUPS:
            size = sum(entry.numel for entry in self.entries if entry.group == group)
            if size:
                yield group, slice(offset, offset + size)
            offset += size

    @property
    def numel(self) -> int:
        return self.weights.numel()

    @property
    def lora_numel(self) -> int:
        """Numbers in all A and B, which come first in the block."""
        return sum(entry.numel for entry in self.entries if entry.group in ("lora_A", "lora_B"))

    @property
    def nbytes(self) -> int:
        """Weights, gradients and two moments."""
        return 4 * self.weights.numel() * self.weights.element_size()
