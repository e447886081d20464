"""Who sits in a pack: candidates join, wait, go on and leave between its ticks, and are kept so that a
run can go on later."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from loraloom.data.rows import Example
from loraloom.errors import RunError
from loraloom.lora.packed import PackedModel
from loraloom.records import Candidate
from loraloom.train.resume import candidate_of, fingerprint, restore_seat, seat_state
from loraloom.train.seat import OrderOf, Seat, new_seat
from loraloom.train.shelf import Shelf
from loraloom.train.start import begin_with


class Seating:
    """The seats of a pack.

    Args:
        packed: the frozen base with its adapters.
        rows: training rows.
        weights: what each row counts in what a window's losses are divided by.
        order_of: which rows a candidate's steps take.

    Attributes:
        seats: those who train now, by trial.
        shelf: those who wait.
    """

    def __init__(
        self,
        packed: PackedModel,
        rows: Sequence[Example],
        weights: Sequence[float],
        order_of: OrderOf,
    ) -> None:
        self.packed = packed
        self.rows = rows
        self.weights = weights
        self.order_of = order_of
        self.seats: dict[str, Seat] = {}
        self.shelf = Shelf()

    def join(self, candidate: Candidate) -> Seat:
        """Give a candidate a seat. Its first micro-batch is in the next tick. Where memory runs out,
        nothing of it stays."""
        with self._whole(candidate.id):
            seat = self._seat(candidate, candidate.training.seed)
            if candidate.start is not None:
                begin_with(self.shelf.run_folder / candidate.start, seat, self.packed)
            return seat

    @contextmanager
    def _whole(self, trial: str) -> Generator[None]:
        """A candidate gets its seat whole, or none."""
        try:
            yield
        except BaseException:
            if trial in self.packed.adapters:
                self.packed.remove(trial)
            self.seats.pop(trial, None)
            raise

    def _seat(self, candidate: Candidate, seed: int | None) -> Seat:
        """A seat for a candidate whose adapter starts from `seed`; None for one that is restored."""
        if self.packed.device.type == "cuda":
            # Its peak is to be its own, not the highest of those before it, which stands in their seats.
            torch.cuda.reset_peak_memory_stats(self.packed.device)
        seat = new_seat(candidate, self.packed, self.order_of, seed)
        self.seats[candidate.id] = seat
        return seat

    def leave(self, trial: str) -> Seat:
        """Take a candidate out; its arena goes with the returned seat, nothing stays in the pack."""
        self.packed.remove(trial)
        return self.seats.pop(trial)

    def pause(self, trial: str) -> None:
        """Let a candidate wait out of the pack, between two of its steps, with everything that it needs
        to go on."""
        self.keep(trial)
        self.leave(trial)

    def keep(self, trial: str) -> None:
        """Put a candidate as it is now on the shelf."""
        self.shelf.put(trial, *seat_state(self.seats[trial]))

    def go_on(self, trial: str) -> Seat:
        """Give a candidate that waits a seat again: it goes on as if it had never left. Where memory
        runs out, it waits on."""
        plain, tensors = self.shelf.read(trial)
        with self._whole(trial):
            seat = self._seat(candidate_of(plain), None)
            restore_seat(seat, plain, tensors, self.weights)
        self.shelf.drop(trial)
        return seat

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on between two ticks: plain values, and under "tensors" tensors on the
        CPU by name. Of candidates that wait only the names of their files."""
        plain: list[dict[str, Any]] = []
        tensors: dict[str, Tensor] = {}
        for seat in self.seats.values():
            values, own = seat_state(seat)
            plain.append(values)
            tensors |= {f"{seat.id}/{name}": tensor for name, tensor in own.items()}
        return {
            "rows": fingerprint(self.rows),
            "seats": plain,
            "tensors": tensors,
            "waiting": self.shelf.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Seat the candidates of a `state_dict` where they were; what sits here leaves.

        Raises:
            RunError: the state was taken over other rows, or from another model.
        """
        if state["rows"] != fingerprint(self.rows):
            raise RunError(
                "the checkpoint was taken over other training rows",
                next="resume with the data of that run",
            )
        for trial in list(self.seats):
            self.leave(trial)
        self.shelf.load_state_dict(state.get("waiting", {}))
        for plain in state["seats"]:
            seat = self._seat(candidate_of(plain), None)
            prefix = f"{seat.id}/"
            tensors: Mapping[str, Tensor] = state["tensors"]
            own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
            restore_seat(seat, plain, own, self.weights)
