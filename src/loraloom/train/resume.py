"""A seat as plain values and tensors, and back: everything that a candidate needs to go
on as if nothing had happened.

The schedule, the data order, dropout and noise are functions of seed and clock, so that there is nothing
of them to keep. What is kept is bound to the trial's id.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, cast

import torch
from torch import Tensor

from loraloom.data.rows import Example
from loraloom.diagnose.signals import Signals
from loraloom.errors import RunError
from loraloom.records import AdapterSpec, Candidate, PreferenceSpec, Score, TrainingSpec
from loraloom.train.seat import Seat

COUNTERS = (
    "micro_rows",
    "step",
    "micro",
    "window_loss",
    "window_tokens",
    "window_kl",
    "nonfinite",
    "wild",
    "bad_layer",
    "tokens",
    "seconds",
    "peak_bytes",
    "first_loss",
    "smoothed_loss",
    "best_step",
)
"""Of `Seat`, kept by name."""


def seat_state(seat: Seat) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(plain values, tensors by name) of a seat; the tensors are copies on the CPU.

    At the end of an interval much of it is known from the rest and left out: gradients between two steps
    are zero, and weights that have just become the best are no others than the present ones (`best_of`).
    """
    plain = {name: getattr(seat, name) for name in COUNTERS}
    plain |= {
        "candidate": asdict(seat.candidate),
        "best": None if seat.best is None else asdict(seat.best),
    }
    plain["signals"] = seat.signals.to_plain()
    arena = seat.adapter.arena
    tensors = {"weights": arena.weights}
    if seat.micro:
        tensors["grads"] = arena.grads
    tensors |= {f"optimizer.{name}": tensor for name, tensor in seat.optimizer.state_dict().items()}
    tensors |= {f"constant.{entry.key}": tensor for entry, tensor in seat.adapter.constants}
    if seat.best_weights is not None and seat.best_step != seat.step:
        tensors["best"] = seat.best_weights
    return plain, {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


def best_of(tensors: Mapping[str, Tensor]) -> Tensor:
    """The best weights in the tensors of a `seat_state`, [P]."""
    return tensors.get("best", tensors["weights"])


def candidate_of(plain: Mapping[str, Any]) -> Candidate:
    """The candidate of a seat's plain values, which may have been through JSON."""
    made = plain["candidate"]
    adapter = dict(made["adapter"])
    for name in ("target_modules", "modules_to_save"):
        adapter[name] = tuple(adapter[name])
    training = dict(made["training"])
    if formed := training.get("preference"):
        training["preference"] = PreferenceSpec(**params_of_plain(formed))
    return Candidate(
        made["id"],
        AdapterSpec(**adapter),
        TrainingSpec(**training),
        params_of_plain(made["params"]),
        made.get("start"),
    )


def params_of_plain(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Searched values as they were before JSON: a list there is a tuple here, or equal
    settings would look different."""
    return {
        key: tuple(cast("list[Any]", value)) if isinstance(value, list) else value
        for key, value in plain.items()
    }


def score_of_plain(plain: Mapping[str, Any]) -> Score:
    """The score whose `asdict` this is, also after JSON."""
    rows = (tuple(plain.get(name, ())) for name in ("costs", "weights", "clusters"))
    return Score(plain["split"], plain["metrics"], *rows)


@torch.no_grad()
def restore_seat(
    seat: Seat, plain: Mapping[str, Any], tensors: Mapping[str, Tensor], weights: Sequence[float]
) -> None:
    """Bring a seat that has just joined to where `seat_state` found it. `weights` as in
    `Seat.open_window`.

    Raises:
        RunError: the adapter has another size than the one that was kept.
    """
    arena = seat.adapter.arena
    if tensors["weights"].shape != arena.weights.shape:
        raise RunError(
            f"the checkpoint of {seat.id} does not fit this model",
            got=f"{tensors['weights'].numel()} trained numbers",
            need=str(arena.numel),
            next="resume the run with the model and adapter settings that it began with",
        )
    arena.weights.copy_(tensors["weights"])
    if "grads" in tensors:
        arena.grads.copy_(tensors["grads"])
    else:
        arena.grads.zero_()
    for entry, tensor in seat.adapter.constants:
        tensor.copy_(tensors[f"constant.{entry.key}"])
    prefix = "optimizer."
    seat.optimizer.load_state_dict(
        {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    )
    for name in COUNTERS:
        # One that this release has added is not in what an earlier one kept.
        setattr(seat, name, plain.get(name, getattr(seat, name)))
    seat.signals = Signals.from_plain(plain["signals"])
    if plain["best"] is not None:
        seat.best = score_of_plain(plain["best"])
        seat.best_weights = best_of(tensors).to(arena.weights, copy=True)
    if seat.micro:
        seat.open_window(weights)
    seat.adapter.refresh()


def fingerprint(examples: Sequence[Example]) -> int:
    """A checksum of the training rows: a clock means nothing over other data."""
    mark = 0
    for row in (row for example in examples for row in example.sides):
        mark = zlib.crc32(row.labels.tobytes(), zlib.crc32(row.input_ids.tobytes(), mark))
    return mark
