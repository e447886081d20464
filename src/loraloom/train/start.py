"""Weights that a candidate begins with, where they are another one's best and not fresh.

They lie in a file that a living candidate was lent from, or in the folder of an adapter that was saved.
Optimiser, schedule and data order begin anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from loraloom.lora.packed import PackedModel
from loraloom.lora.state import read_adapter
from loraloom.store.disk import disk
from loraloom.train.resume import best_of, seat_state
from loraloom.train.seat import Seat
from loraloom.train.tensor_file import write_tensors

CONSTANT = "constant."


def lend(file: Path, seat: Seat) -> None:
    """Write a candidate's best weights for another to begin with.

    Raises:
        StoreError: the disk refused.
    """
    lend_kept(file, seat_state(seat)[1])


def lend_kept(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """The same for one of which `tensors` were kept (`train.resume.seat_state`)."""
    needed = {name: one for name, one in tensors.items() if name.startswith(CONSTANT)}
    needed["best"] = best_of(tensors)
    write_tensors(file, needed, "the weights that a clone begins with")


@torch.no_grad()
def begin_with(place: Path, seat: Seat, packed: PackedModel) -> None:
    """Give a candidate that has just joined the weights in `place`, of an adapter of the same shape.

    Raises:
        ModelError: a tensor of a saved adapter is missing, or has another shape.
        StoreError: the disk refused.
    """
    with disk(place):
        if place.is_dir():
            read_adapter(place, seat.adapter, packed)
            return
        kept = load_file(place)
    for entry, tensor in seat.adapter.constants:
        tensor.copy_(kept[f"{CONSTANT}{entry.key}"])
    seat.adapter.restore(kept["best"].to(seat.adapter.arena.weights))
