"""One trained candidate as the rules see it: what it was asked to do, what was seen,
and the few readings they share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean, pstdev
from typing import Any

from loraloom.config import names
from loraloom.diagnose.signals import Signals

SIGMAS = 2.0
"""Standard errors that a difference must exceed before it counts."""
WORTH = 0.1
"""Share of the whole gain over the bare base that is worth a change of settings."""
LEAST_STEPS = 20
"""A run shorter than this says little about its settings."""


@dataclass(frozen=True)
class Case:
    """A candidate after its last step.

    Attributes:
        values: its settings by dotted key.
        advised: what the rules of `plan` would have chosen, for the keys that they know.
        planned_steps, warmup_steps: of its schedule.
        rows: training rows.
        adapted, adaptable: target layers, and linear layers that could be one.
        decides: name of the deciding metric, without its split.
        base_cost, base_loss: the bare base's deciding cost and loss on validation, None
            where they were not measured.
        guess_cost, guess_loss: deciding cost, and loss, of the best answer that ignores
            the input; None for language models.
        status, reason: how it ended.
        fresh_b: whether B began at 0.
    """

    signals: Signals
    values: Mapping[str, Any]
    planned_steps: int
    warmup_steps: int
    steps_per_epoch: int
    rows: int
    adapted: int
    adaptable: int
    task: str
    decides: str
    advised: Mapping[str, Any] = field(default_factory=dict[str, Any])
    base_cost: float | None = None
    base_loss: float | None = None
    guess_cost: float | None = None
    guess_loss: float | None = None
    status: str = "completed"
    reason: str | None = None
    fresh_b: bool = True

    @property
    def steps(self) -> int:
        """Optimiser steps done."""
        return self.signals.trace.steps[-1] if self.signals.trace.steps else 0

    @property
    def batch(self) -> int:
        """Rows of a step."""
        accumulation = self.values.get(names.GRADIENT_ACCUMULATION_STEPS) or 1
        return int(self.values[names.PER_DEVICE_TRAIN_BATCH_SIZE]) * int(accumulation)

    @property
    def rate(self) -> float:
        return float(self.values[names.LEARNING_RATE])

    @property
    def beta(self) -> float:
        """Of a preference loss."""
        return float(self.values[names.BETA])

    @property
    def loss_types(self) -> tuple[str, ...]:
        """The preference losses that are summed."""
        return tuple(self.values.get(names.LOSS_TYPE) or ())

    @property
    def advised_rate(self) -> float | None:
        value = self.advised.get(names.LEARNING_RATE)
        return None if value is None else float(value)

    @property
    def advised_steps(self) -> int | None:
        """Optimiser steps of the epochs that are advised."""
        epochs = self.advised.get(names.NUM_TRAIN_EPOCHS)
        return None if epochs is None else round(float(epochs) * self.steps_per_epoch)

    @property
    def exit(self) -> tuple[str, str] | None:
        """(status, reason) of the exit that ended this candidate, or would have."""
        if self.status == "diverged":
            return "diverged", self.reason or "it diverged"
        return self.signals.seen_exit

    @cached_property
    def losses(self) -> Sequence[float]:
        return [loss for loss in self.signals.trace.losses if math.isfinite(loss)]

    def window(self, first: float, last: float) -> Window:
        """Training losses between two shares of the steps done."""
        count = len(self.losses)
        low = min(math.floor(first * count), max(count - 1, 0))
        return Window.of(self.losses[low : max(low + 1, math.ceil(last * count))])

    @property
    def fall(self) -> Difference:
        """By how much the training loss fell from the first tenth of the steps to the last quarter."""
        return self.window(0, 0.1) - self.window(0.75, 1)

    @property
    def clipped_share(self) -> float:
        """Share of steps clipped, after warm-up."""
        trace = self.signals.trace
        shares = [
            share
            for step, share in zip(trace.steps, trace.clipped, strict=True)
            if step > self.warmup_steps
        ]
        return fmean(shares) if shares else 0.0

    @property
    def update(self) -> float | None:
        """The median layer's |scale B A| / |W|; None where it was not measured."""
        sizes = sorted(module.update for module in self.signals.modules.values())
        return sizes[len(sizes) // 2] if sizes else None

    @property
    def gap(self) -> Difference | None:
        """By how much the training loss fell more than that on validation. Their difference alone says
        little: the rows of one split may be harder than those of the other before anything is learnt."""
        if not self.signals.readings or self.base_loss is None:
            return None
        last = self.signals.readings[-1]
        fall = self.fall
        return Difference(fall.mean - (self.base_loss - last.loss), math.hypot(last.loss_se, fall.se))

    @property
    def base_gain(self) -> float | None:
        """By how much the best evaluation is better than the bare base, in the deciding cost."""
        best = self.signals.best
        return None if best is None or self.base_cost is None else self.base_cost - best.cost

    def longer(self, factor: float = 2.0) -> dict[str, Any]:
        """The patch that makes the run `factor` times as long."""
        if self.values.get(names.MAX_STEPS):
            return {names.MAX_STEPS: max(1, round(self.values[names.MAX_STEPS] * factor))}
        return {names.NUM_TRAIN_EPOCHS: float(f"{self.values[names.NUM_TRAIN_EPOCHS] * factor:.3g}")}

    def faster(self, factor: float) -> dict[str, Any]:
        """The patch that makes the learning rate `factor` times as large."""
        return {names.LEARNING_RATE: float(f"{self.rate * factor:.3g}")}


@dataclass(frozen=True)
class Difference:
    """A difference of means with its standard error."""

    mean: float
    se: float

    @property
    def sure(self) -> bool:
        """Whether it is above 0 by more than its noise."""
        return self.mean > SIGMAS * self.se

    def __sub__(self, other: Difference) -> Difference:
        """Of two that were measured on different rows."""
        return Difference(self.mean - other.mean, math.hypot(self.se, other.se))


@dataclass(frozen=True)
class Window:
    """A stretch of training losses."""

    mean: float
    se: float
    spread: float
    """Standard deviation of a bucket's loss."""

    @classmethod
    def of(cls, losses: Sequence[float]) -> Window:
        if not losses:
            return cls(math.nan, math.nan, math.nan)
        spread = pstdev(losses) if len(losses) > 1 else 0.0
        return cls(fmean(losses), spread / math.sqrt(len(losses)), spread)

    def __sub__(self, other: Window) -> Difference:
        return Difference(self.mean - other.mean, math.hypot(self.se, other.se))


def word(value: float) -> str:
    """A number as evidence shows it."""
    return f"{value:.3g}"
