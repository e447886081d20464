"""What diagnosis knows of a training: plain numbers of fixed size, however long it ran.

`train` fills these in; the rules of this room read them. Everything goes through JSON unchanged, so that
a checkpoint, an event and run.json can hold it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise
from typing import Any

BUCKETS = 128
"""Points of a trace: a run of up to this many steps is kept step by step, a longer one
in means of 2, 4, 8, ... steps."""

ANSWERS = ("chosen_", "rejected_", "reward_", "length_")


@dataclass
class Trace:
    """The course of training in at most `BUCKETS` buckets of equally many steps; the
    last may still be filling.

    Attributes:
        width: steps of a full bucket.
        steps: the last step in each bucket, counted from 1.
        losses: mean training loss.
        norms: mean gradient norm before clipping.
        clipped: share of steps that were clipped.
        rates: mean learning rate.
    """

    width: int = 1
    steps: list[int] = field(default_factory=list[int])
    losses: list[float] = field(default_factory=list[float])
    norms: list[float] = field(default_factory=list[float])
    clipped: list[float] = field(default_factory=list[float])
    rates: list[float] = field(default_factory=list[float])
    filled: int = 0
    """Steps in the last bucket."""

    def add(self, step: int, loss: float, norm: float, clipped: bool, rate: float) -> None:
        """One optimiser step."""
        if self.filled == self.width and len(self.steps) == BUCKETS:
            self._halve()
        if not self.steps or self.filled == self.width:
            self.filled = 0
            self.steps.append(step)
            for values in self._columns():
                values.append(0.0)
        self.filled += 1
        self.steps[-1] = step
        for values, value in zip(self._columns(), (loss, norm, float(clipped), rate), strict=True):
            values[-1] += (value - values[-1]) / self.filled

    def _columns(self) -> tuple[list[float], ...]:
        return self.losses, self.norms, self.clipped, self.rates

    def _halve(self) -> None:
        """Put every two full buckets together."""
        self.width, self.filled = 2 * self.width, 2 * self.width
        self.steps[:] = self.steps[1::2]
        for values in self._columns():
            values[:] = [(a + b) / 2 for a, b in zip(values[::2], values[1::2], strict=True)]

    @property
    def areas(self) -> list[float]:
        """The learning rate summed over all steps up to each bucket's end."""
        total = 0.0
        areas = list[float]()
        for (before, after), rate in zip(pairwise([0, *self.steps]), self.rates, strict=True):
            total += (after - before) * rate
            areas.append(total)
        return areas


@dataclass(frozen=True)
class Reading:
    """One evaluation on validation.

    `gain` is by how much the deciding cost is lower than at the best evaluation before (the bare base's
    before the first), over the same rows, with its paired standard error; None where nothing came
    before.
    """

    step: int
    epoch: float
    train_loss: float
    """Smoothed over the last steps."""
    loss: float
    loss_se: float
    metric: float
    metric_se: float
    """The share that is right: accuracy or token accuracy."""
    cost: float
    cost_se: float
    """What decides: the loss, or the error rate."""
    gain: float | None = None
    gain_se: float | None = None
    chosen_logratio: float | None = None
    chosen_logratio_se: float | None = None
    rejected_logratio: float | None = None
    """Of preferred answers: log pi(y) / ref(y) in nats a token, chosen and rejected."""
    reward_margin: float | None = None
    """Mean difference of the log-ratios of a pair's whole answers, in nats."""
    chosen_tokens: float | None = None
    rejected_tokens: float | None = None
    length_correlation: float | None = None
    length_correlation_se: float | None = None
    """Between a pair's margin and by how many tokens its chosen answer is longer."""


OF_ANSWERS = tuple(item.name for item in fields(Reading) if item.name.startswith(ANSWERS))
"""What a reading takes over of a score on preferred answers, under the score's own names."""


@dataclass(frozen=True)
class ModuleUpdate:
    """What training did to one target layer. Sizes are Frobenius norms."""

    r: int
    effective_rank: float
    """exp of the entropy of the singular values of B A as shares of their sum (Roy and
    Vetterli, EUSIPCO 2007): 1 to r."""
    update: float
    """|scale * B A| / |W|: how far the layer moved."""
    energy: float
    """This layer's share of the whole adapter's |scale * B A|^2."""
    b_norm: float
    group: str = ""
    """What part of the model it lies in ("attention, first third"); empty in older runs."""


@dataclass
class Signals:
    """Everything that is collected of one candidate.

    Attributes:
        first_norms: norms of the gradients of all A and of all B at the first step.
        modules: by path; empty unless the adapter begins at B = 0.
        train_exact, held_out_exact: share of a few training and validation rows whose every supervised
            token is the model's first choice, at the last step.
        retain_change: how much the loss on the rows of `data.retain` is above the bare base's, with the
            paired standard error; the best checkpoint's.
        seen_exit: (status, reason) of an exit that was only taken down, because the
            user asked not to act.
    """

    trace: Trace = field(default_factory=Trace)
    readings: list[Reading] = field(default_factory=list[Reading])
    first_norms: tuple[float, float] | None = None
    nonfinite: int = 0
    modules: dict[str, ModuleUpdate] = field(default_factory=dict[str, ModuleUpdate])
    train_exact: float | None = None
    held_out_exact: float | None = None
    retain_change: tuple[float, float] | None = None
    seen_exit: tuple[str, str] | None = None

    @property
    def best(self) -> Reading | None:
        """The evaluation with the lowest deciding cost, the earliest of equals."""
        return min(self.readings, key=lambda reading: (reading.cost, reading.loss), default=None)

    def to_plain(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Signals:
        """What `to_plain` gave, also after a way through JSON."""
        return cls(
            trace=Trace(**plain["trace"]),
            readings=[Reading(**reading) for reading in plain["readings"]],
            first_norms=_pair(plain["first_norms"]),
            nonfinite=plain["nonfinite"],
            modules={path: ModuleUpdate(**module) for path, module in plain["modules"].items()},
            train_exact=plain["train_exact"],
            held_out_exact=plain["held_out_exact"],
            retain_change=_pair(plain["retain_change"]),
            seen_exit=_pair(plain["seen_exit"]),
        )


def _pair(values: Sequence[Any] | None) -> tuple[Any, Any] | None:
    return None if values is None else (values[0], values[1])
