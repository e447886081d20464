"""The packed loop: many candidates on one frozen base, each on its own clock.

A tick takes one micro-batch from every live candidate. Each candidate has its own data order, loss, accumulation
window, schedule, clipping and optimiser, so that it is trained exactly as it would be alone; they share only the
frozen layers that a pass runs through. Candidates join and leave between ticks. What happens is told as Events.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import psutil
import torch
from torch import Tensor

from loraloom.data.batches import Numbers, Order, collate, micro_batches
from loraloom.data.encode import Row
from loraloom.evals.objective import Objective
from loraloom.evals.scoring import row_sums, score_of
from loraloom.lora.packed import AdapterWeights, PackedModel, Routing, Segment
from loraloom.records import Candidate, Event, Score, Task
from loraloom.train.optim import FlatOptimizer
from loraloom.train.schedule import lr_at, warmup_steps

NONFINITE_LIMIT = 2
"""A candidate whose gradient was not finite this often has diverged."""
PADDING_LIMIT = 1.25
"""A pass may hold this many times the tokens that are not padding; beyond, longer rows get a pass of their own."""


@dataclass
class Seat:
    """A live candidate and everything that is its own. `step` counts finished optimiser steps."""

    candidate: Candidate
    adapter: AdapterWeights
    optimizer: FlatOptimizer
    order: Order
    planned_steps: int
    evaluation_steps: frozenset[int]
    step: int = 0
    micro: int = 0
    window: list[Numbers] = field(default_factory=list[Numbers])
    window_weight: float = 1.0
    window_loss: float = 0.0
    nonfinite: int = 0
    tokens: int = 0
    seconds: float = 0.0
    peak_bytes: int = 0
    first_loss: float | None = None
    smoothed_loss: float | None = None
    best: Score | None = None
    best_step: int = 0
    best_weights: Tensor | None = None

    @property
    def id(self) -> str:
        return self.candidate.id

    @property
    def progress(self) -> float:
        return self.step / self.planned_steps

    @property
    def epoch(self) -> float:
        return self.step / self.order.steps_per_epoch


class PackTrainer:
    """Trains whatever candidates sit in the pack.

    Args:
        packed: the frozen base with its adapters.
        rows: training rows, encoded and cut.
        objective: the task's loss.
        token_budget: padded tokens of one pass; a pass with one candidate's micro-batch may exceed it.
        validation: rows that `evaluate` scores on; empty for none.
        decide_by: metric that picks a candidate's best checkpoint: "loss" or the objective's share that is right.
    """

    def __init__(
        self, packed: PackedModel, rows: Sequence[Row], objective: Objective, *, task: Task, pad_id: int,
        validation: Sequence[Row] = (), decide_by: str = "loss", token_budget: int = 4096,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:  # fmt: skip
        self.packed, self.rows, self.objective = packed, rows, objective
        self.task: Task = task
        self.pad_id, self.validation, self.decide_by = pad_id, validation, decide_by
        self.token_budget, self.clock = token_budget, clock
        self.lengths = [len(row.input_ids) for row in rows]
        self.weights = [_supervised(row, task) for row in rows]
        self.seats: dict[str, Seat] = {}
        self._process = psutil.Process()

    # -- who sits in the pack ------------------------------------------------------------------------------------

    def join(self, candidate: Candidate) -> Seat:
        """Give a candidate a slot. Its first micro-batch is in the next tick."""
        spec = candidate.training
        effective = spec.per_device_train_batch_size * spec.gradient_accumulation_steps
        order = Order(self.lengths, effective, spec.seed)
        planned = spec.max_steps or max(1, math.ceil(order.steps_per_epoch * spec.num_train_epochs))
        adapter = self.packed.add(candidate.id, candidate.adapter, spec.seed)
        seat = Seat(
            candidate, adapter, FlatOptimizer(adapter.arena, spec), order, planned, evaluation_steps(planned, spec.evaluations)
        )
        self.seats[candidate.id] = seat
        return seat

    def leave(self, trial: str) -> Seat:
        """Take a candidate out; its arena goes with the returned seat, nothing stays in the pack."""
        self.packed.remove(trial)
        return self.seats.pop(trial)

    # -- one tick ------------------------------------------------------------------------------------------------

    def tick(self) -> list[Event]:
        """One micro-batch of every live candidate; those whose window is full take an optimiser step."""
        started = self.clock()
        micro = {seat.id: self._next_micro_batch(seat) for seat in self.seats.values()}
        for group in self._passes(micro):
            self._run_pass(group, micro)
        share = (self.clock() - started) / max(len(micro), 1)
        for trial in micro:
            self.seats[trial].seconds += share
        return [self._finish_window(seat) for seat in list(self.seats.values()) if seat.micro == len(seat.window)]

    def _next_micro_batch(self, seat: Seat) -> Numbers:
        if seat.micro == 0:
            spec = seat.candidate.training
            rows = seat.order.rows_of_step(seat.step)
            seat.window = [*micro_batches(rows, spec.per_device_train_batch_size)]
            seat.window_weight = float(sum(self.weights[i] for i in rows))
            seat.window_loss = 0.0
        return seat.window[seat.micro]

    def _passes(self, micro: dict[str, Numbers]) -> list[list[str]]:
        """Group candidates whose micro-batches are of like length, within the token budget."""
        longest = {trial: max(self.lengths[i] for i in rows) for trial, rows in micro.items()}
        groups: list[list[str]] = []
        real = padded_rows = 0
        for trial in sorted(micro, key=lambda t: longest[t]):
            tokens, count = longest[trial] * len(micro[trial]), len(micro[trial])
            padded = (padded_rows + count) * longest[trial]
            if groups and padded <= self.token_budget and padded <= PADDING_LIMIT * (real + tokens):
                groups[-1].append(trial)
                real, padded_rows = real + tokens, padded_rows + count
            else:
                groups.append([trial])
                real, padded_rows = tokens, count
        return groups

    def _run_pass(self, group: Sequence[str], micro: dict[str, Numbers]) -> None:
        rows = [self.rows[i] for trial in group for i in micro[trial]]
        batch = collate(rows, self.pad_id, self.task).to(self.packed.device)
        segments: list[Segment] = []
        shares: list[float] = []
        start = 0
        for trial in group:
            seat, count = self.seats[trial], len(micro[trial])
            segments.append(Segment(trial, start, start + count, micro_seed(seat)))
            shares += [1 / seat.window_weight] * count
            start += count
        share = torch.tensor(shares, dtype=torch.float64)
        with self.packed.route(Routing(tuple(segments), training=True)) as model:
            result = self.objective.rows(model, batch)
            self._note_memory(group)
            weighted = result.loss * share.to(result.loss)
            weighted.sum().backward()
        losses = weighted.detach().cpu()
        for trial, segment in zip(group, segments, strict=True):
            seat = self.seats[trial]
            seat.window_loss += float(losses[segment.start : segment.stop].sum())
            seat.tokens += int(batch.attention_mask[segment.start : segment.stop].sum())
            seat.micro += 1

    def _finish_window(self, seat: Seat) -> Event:
        spec = seat.candidate.training
        warmup = warmup_steps(seat.planned_steps, spec.warmup_ratio)
        rate = lr_at(seat.step, seat.planned_steps, spec.learning_rate, spec.lr_scheduler_type, warmup)
        norm = float(seat.optimizer.step(rate))
        seat.adapter.refresh()
        seat.step, seat.micro = seat.step + 1, 0
        loss = seat.window_loss
        if not (math.isfinite(norm) and math.isfinite(loss)):
            seat.nonfinite += 1
        else:
            seat.first_loss = loss if seat.first_loss is None else seat.first_loss
            seat.smoothed_loss = loss if seat.smoothed_loss is None else 0.9 * seat.smoothed_loss + 0.1 * loss
        return Event(
            "step",
            seat.id,
            seat.step,
            data={
                "loss": loss, "learning_rate": rate, "grad_norm": norm, "tokens": seat.tokens, "epoch": seat.epoch,
                "planned_steps": seat.planned_steps, "tokens_per_second": seat.tokens / max(seat.seconds, 1e-9),
            },
        )  # fmt: skip

    def _note_memory(self, group: Sequence[str]) -> None:
        """Called where a pass holds most: after forward, before backward."""
        if self.packed.device.type == "cuda":
            used = torch.cuda.max_memory_allocated(self.packed.device)
        else:
            used = int(self._process.memory_info().rss)
        for trial in group:
            self.seats[trial].peak_bytes = max(self.seats[trial].peak_bytes, used)

    # -- scoring and ending --------------------------------------------------------------------------------------

    def due(self) -> list[str]:
        """Candidates that stand at one of their evaluation steps (between optimiser steps)."""
        return [seat.id for seat in self.seats.values() if seat.micro == 0 and seat.step in seat.evaluation_steps]

    def diverged(self) -> list[str]:
        return [seat.id for seat in self.seats.values() if seat.nonfinite >= NONFINITE_LIMIT]

    def finished(self) -> list[str]:
        return [seat.id for seat in self.seats.values() if seat.step >= seat.planned_steps]

    def evaluate(self, trials: Sequence[str], split: str = "validation", rows: Sequence[Row] | None = None) -> dict[str, Score]:
        """Score candidates on a split in shared passes; on validation, remember each one's best weights."""
        chosen = self.validation if rows is None else rows
        sums = row_sums(
            self.packed, self.objective, chosen, list(trials), task=self.task, pad_id=self.pad_id, token_budget=2 * self.token_budget
        )
        scores = {trial: score_of(sums[trial], split, self.objective, self.decide_by) for trial in trials}
        if rows is None:
            for trial, score in scores.items():
                self._keep_best(self.seats[trial], score)
        return scores

    def _keep_best(self, seat: Seat, score: Score) -> None:
        if not math.isfinite(score.metrics["loss"]):
            return
        if seat.best is None or quality(score, self.decide_by) < quality(seat.best, self.decide_by):
            seat.best, seat.best_step, seat.best_weights = score, seat.step, seat.adapter.snapshot()


def quality(score: Score, decide_by: str) -> tuple[float, float]:
    """Smaller is better: the deciding metric, then the loss."""
    loss = score.metrics["loss"]
    return (loss, loss) if decide_by.endswith("loss") else (-score.metrics[decide_by], loss)


def evaluation_steps(planned: int, evaluations: int) -> frozenset[int]:
    """Steps after which a candidate is scored: evenly over its own run, always at its end."""
    count = max(1, min(evaluations, planned))
    return frozenset(max(1, round(planned * (i + 1) / count)) for i in range(count))


def micro_seed(seat: Seat) -> int:
    """Seed of this micro-step's dropout: of the trial's seed and clock alone, not of its slot or its neighbours."""
    return (seat.candidate.training.seed * 1_000_000_007 + seat.step * 4_099 + seat.micro) & 0x7FFF_FFFF_FFFF


def _supervised(row: Row, task: Task) -> int:
    if task == "seq_cls":
        return 1
    labels = row.labels[1:] if task == "causal_lm" else row.labels
    return int((labels != -100).sum())
