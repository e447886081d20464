"""One candidate's adapter: all its weights in one arena, and what the layers see of them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from loraloom.lora.arena import Arena, Entry
from loraloom.lora.pass_stack import Place
from loraloom.records import AdapterSpec

MAGNITUDE_NAME = "lora_magnitude_vector"
"""PEFT's name, in files, of DoRA's magnitude."""

REMOVED = ".removed"
"""Ends the names of what PiSSA or OLoRA took out of the base, beside the A or B of the same name."""


class AdapterWeights:
    """One candidate's adapter in the pack: its arena, and what the layers see of it.

    Attributes:
        constants: tensors that belong to the saved adapter and are never trained (what
            PiSSA took out of the base).
        places: where A and B of each layer are in `block`, by the layer's number.
        held: what is not trained, as a mask over the arena; None where all is.
    """

    def __init__(self, trial: str, spec: AdapterSpec, arena: Arena) -> None:
        self.trial, self.spec, self.arena = trial, spec, arena
        self.constants: list[tuple[Entry, Tensor]] = []
        self.places: dict[int, Place] = {}
        self.held: Tensor | None = None
        self._blocks: dict[torch.dtype, Tensor] = {}

    def seen(self, entry: Entry, dtype: torch.dtype) -> Tensor:
        """What a layer of this dtype multiplies with: A or B itself, or its place in a
        copy kept up by `refresh`."""
        block = self._blocks.get(dtype)
        if block is None:
            masters = self.arena.weights[: self.arena.lora_numel]
            block = masters if masters.dtype == dtype else torch.empty_like(masters, dtype=dtype)
            self._blocks[dtype] = block
        return self.arena.view(block, entry)

    @property
    def block(self) -> Tensor | None:
        """All A and B as layers multiply with them, flat; None where layers differ in dtype."""
        return next(iter(self._blocks.values())) if len(self._blocks) == 1 else None

    @property
    def copied(self) -> Tensor | None:
        """The block, where it is a copy of the masters in another dtype."""
        block = self.block
        return None if block is None or block.dtype == self.arena.weights.dtype else block

    def refresh(self) -> None:
        """Bring the copies in other dtypes up to the masters, after an optimiser step or a restore."""
        for block in self._blocks.values():
            if block.dtype != self.arena.weights.dtype:
                block.copy_(self.arena.weights[: block.numel()])

    def hold(self, ranks: int) -> None:
        """Train only what lies beyond the first `ranks` of each layer: an adapter that stays as it is
        and another that is trained beside it take one place so."""
        mask = torch.zeros_like(self.arena.weights, dtype=torch.bool)
        for entry in self.arena.entries:
            part = self.arena.view(mask, entry)
            (part if entry.group == "lora_A" else part.T)[:ranks] = True
        self.held = mask

    def clear_held(self) -> None:
        """Take the gradients of what is held out, before they are looked at or stepped along. Without
        gradients AdamW leaves a weight alone, where it does not decay."""
        if self.held is not None:
            self.arena.grads.masked_fill_(self.held, 0.0)

    def snapshot(self) -> Tensor:
        return self.arena.weights.clone()

    def restore(self, weights: Tensor) -> None:
        self.arena.weights.copy_(weights)
        self.refresh()

    def tensors(self, flat: Tensor | None = None) -> Iterator[tuple[Entry, Tensor]]:
        """Every tensor with its entry, of the present weights or of a snapshot."""
        source = self.arena.weights if flat is None else flat
        for entry in self.arena.entries:
            yield entry, self.arena.view(source, entry)
        yield from self.constants
