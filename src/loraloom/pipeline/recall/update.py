"""What a memory's adapter changes, as numbers: between files, a slot of the pack, and arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from loraloom.adapters.factors import concatenated, truncated
from loraloom.adapters.form import read_form
from loraloom.lora.adapter_weights import AdapterWeights
from loraloom.lora.arena import Entry
from loraloom.lora.base import Base
from loraloom.lora.state import save_adapter
from loraloom.records import AdapterSpec

Factors = tuple[Tensor, Tensor]
"""A [R, D] and B [O, R]."""
SCALE = 2.0
"""alpha / r of every adapter of a memory: two that stand side by side in a slot have to share it."""


@dataclass(frozen=True)
class Update:
    """delta W = B A of each layer, by its path; all of one rank."""

    factors: Mapping[str, Factors]

    @property
    def rank(self) -> int:
        return next(iter(self.factors.values()))[0].shape[0]

    @property
    def bytes(self) -> int:
        """Of its numbers."""
        return sum(one.numel() * one.element_size() for pair in self.factors.values() for one in pair)

    def beside(self, other: Update) -> Update:
        """The sum of two: this one's ranks come first."""
        return Update(
            {path: concatenated([own, other.factors[path]]) for path, own in self.factors.items()}
        )

    def cut_to(self, rank: int) -> Update:
        """The nearest update of a rank, by a singular value decomposition."""
        return Update({path: truncated(*own, rank) for path, own in self.factors.items()})

    def times(self, scale: float) -> Update:
        """The same update, weaker or stronger."""
        return Update({path: (a, b * scale) for path, (a, b) in self.factors.items()})

    def parts(self, ranks: int) -> tuple[Update, Update]:
        """The first so many ranks, and the others."""
        first = {path: (a[:ranks], b[:, :ranks]) for path, (a, b) in self.factors.items()}
        rest = {path: (a[ranks:], b[:, ranks:]) for path, (a, b) in self.factors.items()}
        return Update(first), Update(rest)

    def equals(self, other: Update) -> bool:
        """Whether two updates are the same, to the bit."""
        return self.factors.keys() == other.factors.keys() and all(
            torch.equal(one, two)
            for path, own in self.factors.items()
            for one, two in zip(own, other.factors[path], strict=True)
        )

    def save(self, folder: Path, spec: AdapterSpec, base: Base) -> None:
        """Write it in PEFT's format. `spec` says which layers it is for.

        Raises:
            OSError: the disk refused.
        """
        pairs: list[tuple[Entry, Tensor]] = []
        for path, (a, b) in self.factors.items():
            pairs.append((Entry(path, "lora_A.weight", "lora_A", tuple(a.shape)), a))
            pairs.append((Entry(path, "lora_B.weight", "lora_B", tuple(b.shape)), b / SCALE))
        try:
            save_adapter(folder, pairs, spec, base)
        except SafetensorError as error:
            raise OSError(f"{error}") from error


def read_update(folder: Path) -> Update:
    """The update of a PEFT folder that `Update.save` wrote.

    Raises:
        ModelError: it cannot be read.
    """
    found = read_form(folder).factors
    return Update({path: (one.a_RD, one.b_OR * one.scale) for path, one in found.items()})


@torch.no_grad()
def place(update: Update, adapter: AdapterWeights) -> None:
    """Put an update into the first ranks of a slot, whose scale is `SCALE`; its other ranks stay as
    they are."""
    ranks = update.rank
    for entry, tensor in adapter.tensors():
        a, b = update.factors[entry.path]
        if entry.group == "lora_A":
            tensor[:ranks] = a.to(tensor)
        else:
            tensor[:, :ranks] = (b / SCALE).to(tensor)
    adapter.refresh()


def taken(adapter: AdapterWeights) -> Update:
    """The whole update of a slot, as a copy on the host."""
    halves: dict[str, dict[str, Tensor]] = {}
    for entry, tensor in adapter.tensors():
        halves.setdefault(entry.path, {})[entry.group] = tensor.detach().float().cpu().clone()
    return Update({path: (own["lora_A"], own["lora_B"] * SCALE) for path, own in halves.items()})
