"""A candidate in the pack and everything that is its own: adapter, optimiser, data
order, clock, counters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from loraloom.data.batches import Numbers, Order, micro_batches
from loraloom.diagnose.signals import Signals
from loraloom.lora.adapter_weights import AdapterWeights
from loraloom.records import Candidate, Score
from loraloom.train.optim import FlatOptimizer


@dataclass
class Seat:
    """A live candidate. `step` counts finished optimiser steps, `micro` the passes of
    the open accumulation window.

    Attributes:
        micro_rows: rows of one pass; smaller than asked once memory ran out, with the
            same rows in each step.
        window: the micro-batches of the open step; empty between steps.
        window_weight: supervised tokens (or rows) of the whole window: what its losses are divided by.
        nonfinite: windows whose loss or gradient was not finite; they changed no weight.
        pass_losses: losses of the last pass's rows, each divided as the window asks, on
            the device; read at the tick's end.
        wild: windows in a row whose loss was far above the first one's.
        bad_layer: the first layer whose output went bad, once one did.
    """

    candidate: Candidate
    adapter: AdapterWeights
    optimizer: FlatOptimizer
    order: Order
    planned_steps: int
    evaluation_steps: frozenset[int]
    micro_rows: int
    step: int = 0
    micro: int = 0
    window: list[Numbers] = field(default_factory=list[Numbers])
    window_weight: float = 1.0
    window_loss: float = 0.0
    window_tokens: int = 0
    pass_losses: Tensor | None = None
    nonfinite: int = 0
    wild: int = 0
    bad_layer: str | None = None
    tokens: int = 0
    seconds: float = 0.0
    peak_bytes: int = 0
    first_loss: float | None = None
    smoothed_loss: float | None = None
    best: Score | None = None
    best_step: int = 0
    best_weights: Tensor | None = None
    signals: Signals = field(default_factory=Signals)

    @property
    def id(self) -> str:
        return self.candidate.id

    @property
    def progress(self) -> float:
        return self.step / self.planned_steps

    @property
    def epoch(self) -> float:
        return self.step / self.order.steps_per_epoch

    def open_window(self, weights: Sequence[float]) -> None:
        """Cut the rows of the present step into micro-batches. `weights`: supervised
        tokens of each training row."""
        rows = self.order.rows_of_step(self.step)
        self.window = micro_batches(rows, self.micro_rows)
        self.window_weight = float(sum(weights[i] for i in rows))

    def restart_window(self) -> None:
        """Forget what the open window has done so far: gradients, loss and tokens counted."""
        self.adapter.arena.grads.zero_()
        self.tokens -= self.window_tokens
        self._clear_window()

    def close_window(self) -> None:
        """The optimiser has stepped."""
        self.step += 1
        self._clear_window()

    def _clear_window(self) -> None:
        self.micro, self.window, self.window_loss, self.window_tokens = 0, [], 0.0, 0


def micro_seed(seat: Seat) -> int:
    """Seed of this micro-step's dropout and noise: of the trial's seed and clock alone,
    not of its trial or neighbours."""
    return (
        seat.candidate.training.seed * 1_000_000_007 + seat.step * 4_099 + seat.micro
    ) & 0x7FFF_FFFF_FFFF


def planned_steps(candidate: Candidate, order: Order) -> int:
    """Optimiser steps of a candidate: `max_steps`, else its epochs."""
    spec = candidate.training
    return spec.max_steps or max(1, math.ceil(order.steps_per_epoch * spec.num_train_epochs))


def evaluation_steps(planned: int, evaluations: int) -> frozenset[int]:
    """Steps after which a candidate is scored: evenly over its own run, always at its end."""
    count = max(1, min(evaluations, planned))
    return frozenset(max(1, round(planned * (i + 1) / count)) for i in range(count))
