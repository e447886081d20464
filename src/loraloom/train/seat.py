"""A candidate in the pack with everything that is its own (adapter, optimiser, data order, clock,
counters), and the pass in which several go through the model together."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from loraloom.data.batches import (
    Batch,
    Numbers,
    Order,
    RowOrder,
    Term,
    collate,
    micro_batches,
    supervised,
)
from loraloom.data.joined import row_lengths
from loraloom.data.rows import Example, Pair, Row
from loraloom.diagnose.signals import Signals
from loraloom.evals.cross_entropy import Positions
from loraloom.lora.adapter_weights import AdapterWeights
from loraloom.lora.device_faults import is_out_of_memory
from loraloom.lora.neftune import Noise
from loraloom.lora.packed import PackedModel
from loraloom.lora.routing import Routing
from loraloom.lora.segment import Segment
from loraloom.records import Candidate, Score, Task
from loraloom.train.optim import FlatOptimizer
from loraloom.train.schedule import lr_at, warmup_steps

OrderOf = Callable[[Candidate], RowOrder]
"""From a candidate to the rows that its steps take."""


@dataclass
class Seat:
    """A live candidate. `step` counts finished optimiser steps, `micro` the passes of the open
    accumulation window.

    Attributes:
        micro_rows: rows of one pass; smaller than asked once memory ran out, with the same rows in each
            step.
        window: the micro-batches of the open step; empty between steps.
        window_weight: supervised tokens (or rows) of the whole window: what its losses are divided by.
        window_kl: how far this candidate has moved from its reference on the window's rows, where its
            loss asks for that.
        nonfinite: windows whose loss or gradient was not finite; they changed no weight.
        pass_losses: losses of the last pass's rows, each divided as the window asks, on the device; read
            at the tick's end.
        wild: windows in a row whose loss was far above the first one's.
        bad_layer: the first layer whose output went bad, once one did.
    """

    candidate: Candidate
    adapter: AdapterWeights
    optimizer: FlatOptimizer
    order: RowOrder
    planned_steps: int
    evaluation_steps: frozenset[int]
    micro_rows: int
    step: int = 0
    micro: int = 0
    window: list[Numbers] = field(default_factory=list[Numbers])
    window_weight: float = 1.0
    window_loss: float = 0.0
    window_tokens: int = 0
    window_kl: float = 0.0
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

    @property
    def learning_rate(self) -> float:
        """Of the present step."""
        spec = self.candidate.training
        warmup = warmup_steps(self.planned_steps, spec.warmup_ratio)
        return lr_at(self.step, self.planned_steps, spec.learning_rate, spec.lr_scheduler_type, warmup)

    @property
    def micro_seed(self) -> int:
        """Seed of this micro-step's dropout and noise: of the candidate's seed and clock alone, not of
        its id or neighbours."""
        seed = self.candidate.training.seed * 1_000_000_007 + self.step * 4_099 + self.micro
        return seed & 0x7FFF_FFFF_FFFF

    def open_window(self, weights: Sequence[float]) -> None:
        """Cut the rows of the present step into micro-batches. `weights`: supervised tokens of each
        training row."""
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
        self.micro = 0
        self.window = []
        self.window_loss = 0.0
        self.window_tokens = 0
        self.window_kl = 0.0

    def keep_best(self, score: Score, decide_by: str) -> None:
        """Remember the present weights if no score so far was as good by the metric `decide_by`."""
        if not math.isfinite(score.metrics["loss"]):
            return
        if self.best is None or _rank(score, decide_by) < _rank(self.best, decide_by):
            self.best = score
            self.best_step = self.step
            self.best_weights = self._snapshot()

    def _snapshot(self) -> Tensor:
        """A copy of the weights, on the host where the device has no room for it."""
        try:
            return self.adapter.snapshot()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        return self.adapter.arena.weights.to("cpu", copy=True)


def _rank(score: Score, decide_by: str) -> tuple[float, float, float]:
    """Smaller is better: the deciding metric, then how far it has moved from its reference, then the
    loss."""
    loss = score.metrics["loss"]
    cost = loss if decide_by.endswith("loss") else -score.metrics[decide_by]
    return (cost, score.drift, loss)


def planned_steps(candidate: Candidate, order: RowOrder) -> int:
    """Optimiser steps of a candidate: `max_steps`, else its epochs."""
    spec = candidate.training
    return spec.max_steps or max(1, math.ceil(order.steps_per_epoch * spec.num_train_epochs))


def evaluation_steps(planned: int, evaluations: int) -> frozenset[int]:
    """Steps after which a candidate is scored: evenly over its own run, always at its end."""
    count = max(1, min(evaluations, planned))
    return frozenset(max(1, round(planned * (i + 1) / count)) for i in range(count))


def shuffled(lengths: Sequence[int]) -> OrderOf:
    """The usual order: epochs of all rows, shuffled by the candidate's own seed.

    Args:
        lengths: tokens of each training row.
    """

    def order(candidate: Candidate) -> RowOrder:
        spec = candidate.training
        effective = spec.per_device_train_batch_size * spec.gradient_accumulation_steps
        return Order(lengths, effective, spec.seed)

    return order


def new_seat(candidate: Candidate, packed: PackedModel, order_of: OrderOf, seed: int | None) -> Seat:
    """Everything that a candidate needs to train, at its first step.

    Args:
        seed: that its adapter starts from; None where it is to be restored.
    """
    spec = candidate.training
    order = order_of(candidate)
    planned = planned_steps(candidate, order)
    adapter = packed.add(candidate.id, candidate.adapter, seed)
    optimizer = FlatOptimizer(adapter.arena, spec)
    if packed.device.type != "cpu":
        optimizer.reserve()
    return Seat(
        candidate,
        adapter,
        optimizer,
        order,
        planned,
        evaluation_steps(planned, spec.evaluations),
        spec.per_device_train_batch_size,
    )


@dataclass(frozen=True)
class Pass:
    """One forward and backward pass.

    Attributes:
        shares: [examples], float64: what the loss sum of each example is multiplied by.
        spans: the examples of each candidate, in the order of the segments.
        at: where its targets are, once somebody has looked.
    """

    batch: Batch
    routing: Routing
    noises: tuple[Noise, ...]
    shares: Tensor
    at: Positions | None = None
    spans: tuple[slice, ...] = ()


def assemble(
    group: Sequence[Seat],
    micro: Mapping[str, Numbers],
    examples: Sequence[Example],
    pad_id: int,
    task: Task,
    *,
    joined: bool = False,
) -> Pass:
    """The pass of these candidates' micro-batches, each one's rows beside each other.

    Args:
        micro: numbers of the examples in each candidate's micro-batch.
        joined: the sides of a pair are one row.
    """
    chosen: list[Example] = []
    segments: list[Segment] = []
    noises: list[Noise] = []
    shares: list[float] = []
    terms: list[Term] = []
    spans: list[slice] = []
    start = 0
    for seat in group:
        own = [examples[i] for i in micro[seat.id]]
        lengths = tuple(length for one in own for length in row_lengths(one, joined=joined))
        stop = start + len(lengths)
        segments.append(Segment(seat.id, start, stop, seat.micro_seed))
        if alpha := seat.candidate.training.neftune_noise_alpha:
            noises.append(Noise(start, stop, alpha, seat.micro_seed, lengths))
        shares += [_share(seat, one, task) for one in own]
        terms += _terms(seat, own, examples)
        spans.append(slice(len(chosen), len(chosen) + len(own)))
        chosen += own
        start = stop
    return Pass(
        collate(chosen, pad_id, task, terms, joined=joined),
        Routing(tuple(segments), training=True),
        tuple(noises),
        torch.tensor(shares, dtype=torch.float64),
        spans=tuple(spans),
    )


def _share(seat: Seat, example: Example, task: Task) -> float:
    """What the sum of an example's token losses is multiplied by."""
    if not isinstance(example, Row) or example.loss == "nll":
        return 1 / seat.window_weight
    return example.weight / supervised(example, task)


def _terms(seat: Seat, own: Sequence[Example], examples: Sequence[Example]) -> list[Term]:
    """What is formed of each of its pairs or judged answers in a pass; none for rows."""
    spec = seat.candidate.training.preference
    if spec is None:
        return []
    window = [examples[i] for micro in seat.window for i in micro]
    # The prompt's tokens are learnt too by orpo, as in TRL; nothing predicts the first.
    taught = sum(
        len(one.chosen) - 1 if "orpo" in spec.loss_type else one.chosen.supervised
        for one in window
        if isinstance(one, Pair)
    )
    return [Term(spec, len(window) / max(1, taught), seat.window_kl)] * len(own)
