"""The packed loop: many candidates on one frozen base, each on its own clock.

A tick takes one micro-batch from every live candidate. Each candidate has its own data order, loss,
accumulation window, schedule, clipping and optimiser, so that it is trained exactly as it would be
alone; they share only the frozen layers that a pass runs through. Candidates join and leave between
ticks. What happens is told as Events.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psutil
import torch
from torch import Tensor, nn

from loraloom.data.batches import Numbers, Order
from loraloom.data.encode import Row
from loraloom.errors import RunError
from loraloom.evals.neighbours import refuse_seen_neighbours
from loraloom.evals.objective import Objective
from loraloom.evals.scoring import EVALUATION_FACTOR, RowSums, row_sums, score_of
from loraloom.facts.device import held_by_others_now
from loraloom.lora.device_faults import is_out_of_memory
from loraloom.lora.neftune import noisy_embeddings
from loraloom.lora.packed import PackedModel
from loraloom.lora.routing import BASE, Routing
from loraloom.lora.transfer import fetch, send
from loraloom.lora.workers import Workers
from loraloom.records import Candidate, Event, Score, Task
from loraloom.train.cuda_graph import PassGraphs
from loraloom.train.fast_path import unused
from loraloom.train.faults import first_bad, first_grown, free_memory, largest_outputs, last_bad_gradient
from loraloom.train.optim import FlatOptimizer, Step, gradient_norms, step_all
from loraloom.train.passes import Pass, assemble, next_passes, supervised
from loraloom.train.resume import candidate_of, fingerprint, restore_seat, seat_state
from loraloom.train.schedule import lr_at, warmup_steps
from loraloom.train.seat import Seat, evaluation_steps, planned_steps
from loraloom.train.shelf import Shelf
from loraloom.train.signals import Gauge, first_norms

NONFINITE_LIMIT = 2
"""A candidate whose loss or gradient was not finite this often has diverged."""
WILD_FACTOR, WILD_LIMIT = 3.0, 5
"""So has one whose loss was this many times its first, and worse than guessing, in this
many windows in a row."""


class PackTrainer:
    """Trains whatever candidates sit in the pack.

    Args:
        packed: the frozen base with its adapters.
        rows: training rows, encoded and cut.
        objective: the task's loss.
        token_budget: padded tokens of one pass; a pass with one candidate's micro-batch may exceed it.
        validation: rows that `evaluate` scores on; empty for none.
        decide_by: metric that picks a candidate's best checkpoint: "loss" or the
            objective's share that is right.
        checkpointing: keep only the input of each repeated block for the backward pass,
            and run the block again there.
        signals: collect what diagnosis looks at, in `Seat.signals`.
        workers: passes at once; None for as many as the device has use for.
        graphs: record passes that repeat as CUDA graphs; None for where the kernels are
            used, which make them repeat.
    """

    def __init__(
        self,
        packed: PackedModel,
        rows: Sequence[Row],
        objective: Objective,
        *,
        task: Task,
        pad_id: int,
        validation: Sequence[Row] = (),
        decide_by: str = "loss",
        token_budget: int = 4096,
        checkpointing: bool = False,
        signals: bool = True,
        workers: int | None = None,
        graphs: bool | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.packed, self.rows, self.objective = packed, rows, objective
        self.task: Task = task
        self.pad_id, self.validation, self.decide_by = pad_id, validation, decide_by
        self.token_budget, self.clock = token_budget, clock
        self.lengths = [len(row.input_ids) for row in rows]
        self.weights = [supervised(row, task) for row in rows]
        self.seats: dict[str, Seat] = {}
        self.shelf = Shelf()
        self.workers = Workers(packed.device, workers)
        self.gauge = Gauge(packed, objective.metric) if signals else None
        self.graphs = None
        if (
            packed.device.type == "cuda"
            and self.workers.count == 1
            and (packed.kernels if graphs is None else graphs)
        ):
            answer = max(len(row.labels) for row in rows) if task == "seq2seq_lm" else 0
            self.graphs = PassGraphs(packed, objective, pad_id, (max(self.lengths), answer))
        if checkpointing:
            packed.checkpoint()
        with packed.base_only() as model:
            refuse_seen_neighbours(objective, model, task, pad_id)
        self._notes: list[Event] = []
        self._told: set[str] = set()
        self._process = psutil.Process()

    # -- who sits in the pack
    # ------------------------------------------------------------------------------------

    def join(self, candidate: Candidate) -> Seat:
        """Give a candidate a trial. Its first micro-batch is in the next tick. Where
        memory runs out, nothing of it stays."""
        with self._whole(candidate.id):
            return self._seat(candidate, candidate.training.seed)

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
        """A trial for a candidate whose adapter starts from `seed`; None for one that is restored."""
        spec = candidate.training
        effective = spec.per_device_train_batch_size * spec.gradient_accumulation_steps
        order = Order(self.lengths, effective, spec.seed)
        planned = planned_steps(candidate, order)
        if self.packed.device.type == "cuda":
            # Its peak is to be its own, not the highest of those before it; theirs
            # stands in their seats.
            torch.cuda.reset_peak_memory_stats(self.packed.device)
        adapter = self.packed.add(candidate.id, candidate.adapter, seed)
        optimizer = FlatOptimizer(adapter.arena, spec)
        if self.packed.device.type != "cpu":
            optimizer.reserve()
        seat = Seat(
            candidate,
            adapter,
            optimizer,
            order,
            planned,
            evaluation_steps(planned, spec.evaluations),
            spec.per_device_train_batch_size,
        )
        self.seats[candidate.id] = seat
        return seat

    def leave(self, trial: str) -> Seat:
        """Take a candidate out; its arena goes with the returned seat, nothing stays in the pack."""
        self.packed.remove(trial)
        return self.seats.pop(trial)

    def pause(self, trial: str) -> None:
        """Let a candidate wait out of the pack, between two of its steps, with
        everything that it needs to go on."""
        self.keep(trial)
        self.leave(trial)

    def keep(self, trial: str) -> None:
        """Put a candidate as it is now on the shelf."""
        self.shelf.put(trial, *seat_state(self.seats[trial]))

    def go_on(self, trial: str) -> Seat:
        """Give a candidate that waits a trial again: it goes on as if it had never left. Where memory
        runs out, it waits on."""
        plain, tensors = self.shelf.read(trial)
        with self._whole(trial):
            seat = self._seat(candidate_of(plain), None)
            restore_seat(seat, plain, tensors, self.weights)
        self.shelf.drop(trial)
        return seat

    # -- going on later
    # ------------------------------------------------------------------------------------------

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
            "token_budget": self.token_budget,
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
        self.token_budget = state["token_budget"]
        for plain in state["seats"]:
            seat = self._seat(candidate_of(plain), None)
            prefix = f"{seat.id}/"
            own = {
                name.removeprefix(prefix): t
                for name, t in state["tensors"].items()
                if name.startswith(prefix)
            }
            restore_seat(seat, plain, own, self.weights)

    # -- one tick
    # ------------------------------------------------------------------------------------------------

    def tick(self) -> list[Event]:
        """One micro-batch of every live candidate; those whose window is full take an optimiser step."""
        started, present = self.clock(), list(self.seats.values())
        events, self._notes = self._notes, []
        waiting = {seat.id: self._next_micro_batch(seat) for seat in present}
        together = self._may_share(present)
        while waiting:
            passes = next_passes(waiting, self.lengths, self.token_budget, self.workers.count)
            groups = [[self.seats[trial] for trial in one] for one in passes]
            for group, fits in zip(
                groups, self._run_passes(groups, waiting, together=together), strict=True
            ):
                if fits:
                    for seat in group:
                        del waiting[seat.id]
                else:
                    events += self._shrink(group, waiting)
                    waiting |= {seat.id: self._next_micro_batch(seat) for seat in group}
        events += self._finish_windows(present)
        share = (self.clock() - started) / max(len(present), 1)
        for seat in present:
            seat.seconds += share
        return events + self._unused()

    def _unused(self) -> list[Event]:
        """What was not told yet of a fast path that does not work here."""
        new = [text for text in unused(self.packed, self.graphs) if text not in self._told]
        self._told.update(new)
        return [Event("note", data={"text": text}) for text in new]

    def _next_micro_batch(self, seat: Seat) -> Numbers:
        if not seat.window:
            seat.open_window(self.weights)
        return seat.window[seat.micro]

    def _may_share(self, present: Sequence[Seat]) -> bool:
        """Whether passes may run at once: no pass changes the model while it runs."""
        noisy = any(seat.candidate.training.neftune_noise_alpha for seat in present)
        return not noisy and self.objective.concurrent

    def _run_passes(
        self, groups: Sequence[Sequence[Seat]], micro: dict[str, Numbers], *, together: bool
    ) -> list[bool]:
        """Which of the passes found memory. A pass that is alone has all cores to itself."""
        if len(groups) == 1:
            return [self._fits(groups[0], micro)]
        return self.workers.map(lambda group: self._fits(group, micro), groups, together=together)

    def _fits(self, group: Sequence[Seat], micro: dict[str, Numbers]) -> bool:
        """Run a pass; False when memory ran out, with nothing counted but with
        gradients in an unknown state."""
        try:
            self._run_pass(group, micro)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return False
        return True

    def _run_pass(self, group: Sequence[Seat], micro: dict[str, Numbers]) -> None:
        group = group if self.graphs is None else self.graphs.ordered(group, micro)
        one = assemble(group, micro, self.rows, self.pad_id, self.task)
        if self.graphs is None:
            losses = self._through(one, group)
        else:
            fresh = not any(seat.micro for seat in group)
            losses = self.graphs.run(one, lambda one: self._through(one, group), fresh=fresh)
            self._note_memory(group)
        lengths = one.batch.attention_mask.sum(1)
        for seat, segment in zip(group, one.routing.segments, strict=True):
            tokens = int(lengths[segment.start : segment.stop].sum())
            seat.pass_losses = losses[segment.start : segment.stop]
            seat.tokens, seat.window_tokens = seat.tokens + tokens, seat.window_tokens + tokens
            seat.micro += 1

    def _through(self, one: Pass, group: Sequence[Seat]) -> Tensor:
        """Forwards and backwards. Gives each row's loss as the window counts it, on the device."""
        batch = one.batch.to(self.packed.device)
        with self.packed.route(one.routing) as model, noisy_embeddings(model, one.noises):
            result = self.objective.rows(model, batch, one.at)
            self._note_memory(group)
            weighted = result.loss * send(one.shares.to(result.loss.dtype), self.packed.device)
            weighted.sum().backward()
        return weighted.detach()

    def free_memory(self) -> None:
        """Give back what failed work left behind, and what graphs hold; call it outside
        the `except` block."""
        if self.graphs is not None:
            self.graphs.stop("memory ran out")
        free_memory(self.packed.device)

    def _shrink(self, group: Sequence[Seat], micro: dict[str, Numbers]) -> list[Event]:
        """Make the next try smaller. Steps stay what they are: the same rows, divided
        by the same weight.

        A pass that failed halfway may have left part of its gradients, and earlier passes of an open
        window lie in the same block: so that nothing is counted twice, the windows of all in the pass
        start anew.

        Raises:
            RunError: one row of one candidate does not fit.
        """
        self.free_memory()
        for seat in group:
            seat.restart_window()
        longest = max(self.lengths[i] for seat in group for i in micro[seat.id])
        rows = sum(len(micro[seat.id]) for seat in group)
        if len(group) > 1:
            self.token_budget = max(1, min(self.token_budget, longest * rows) // 2)
            whom = f"{len(group)} candidates{_held_by_others()}"
            text = (
                f"memory ran out in a pass of {whom}: passes now hold at most {self.token_budget} tokens"
            )
            return [Event("note", data={"text": text, "token_budget": self.token_budget})]
        seat = group[0]
        if rows == 1:
            raise RunError(
                f"memory ran out with one row of {longest} tokens of candidate {seat.id}",
                need="memory for one row of one candidate",
                next="set data.max_length lower, or training.gradient_checkpointing: true",
            )
        seat.micro_rows = -(-rows // 2)
        smaller = (
            f"{seat.id} now takes {seat.micro_rows} rows a pass and as many passes as its batch needs"
        )
        text = f"memory ran out{_held_by_others()}: {smaller}"
        return [Event("note", seat.id, seat.step, data={"text": text, "micro_rows": seat.micro_rows})]

    def _finish_windows(self, present: Sequence[Seat]) -> list[Event]:
        """Count the losses of a tick, and step those whose window is full.

        All that the host has to know of a tick comes in one copy: it waits for the
        device here, and nowhere else.
        """
        full = [seat for seat in present if seat.micro == len(seat.window)]
        new = [seat for seat in full if self.gauge and seat.signals.first_norms is None]
        losses = [seat.pass_losses for seat in present if seat.pass_losses is not None]
        firsts = [norm for seat in new for norm in first_norms(seat.adapter)]
        read = iter(fetch([*losses, *gradient_norms([seat.adapter.arena for seat in full]), *firsts]))
        for seat in present:
            seat.window_loss += float(next(read).sum())
            seat.pass_losses = None
        norms = [next(read) for _ in full]
        for seat in new:
            seat.signals.first_norms = float(next(read)), float(next(read))
        steps = [
            Step(seat.optimizer, seat.adapter, self._rate(seat), norm)
            for seat, norm in zip(full, norms, strict=True)
        ]
        blamed = [
            self._judge(seat, seat.window_loss, float(norm))
            for seat, norm in zip(full, norms, strict=True)
        ]
        for seat, step in zip(full, steps, strict=True):
            if self.gauge:
                self.gauge.stepped(seat, seat.window_loss, float(step.norm), step.rate)
        step_all(steps, kernels=self.packed.kernels)
        return [self._close_window(*one) for one in zip(full, steps, blamed, strict=True)]

    def _rate(self, seat: Seat) -> float:
        spec = seat.candidate.training
        warmup = warmup_steps(seat.planned_steps, spec.warmup_ratio)
        return lr_at(seat.step, seat.planned_steps, spec.learning_rate, spec.lr_scheduler_type, warmup)

    def _close_window(self, seat: Seat, step: Step, blamed: str | None) -> Event:
        loss, rate, norm = seat.window_loss, step.rate, step.norm
        seat.close_window()
        data = {
            "loss": loss,
            "learning_rate": rate,
            "grad_norm": float(norm),
            "tokens": seat.tokens,
            "epoch": seat.epoch,
            "planned_steps": seat.planned_steps,
            "tokens_per_second": seat.tokens / max(seat.seconds, 1e-9),
        }
        return Event(
            "step", seat.id, seat.step, data=data | ({"first_bad_layer": blamed} if blamed else {})
        )

    # -- health
    # --------------------------------------------------------------------------------------------------

    def _judge(self, seat: Seat, loss: float, norm: float) -> str | None:
        """Keep count of losses and gradients gone wrong; the layer to blame, in a
        window that went wrong."""
        if not (math.isfinite(norm) and math.isfinite(loss)):
            seat.nonfinite += 1
            seat.bad_layer = seat.bad_layer or self._bad_layer(seat)
            return seat.bad_layer
        seat.first_loss = loss if seat.first_loss is None else seat.first_loss
        seat.smoothed_loss = (
            loss if seat.smoothed_loss is None else 0.9 * seat.smoothed_loss + 0.1 * loss
        )
        seat.wild = (
            seat.wild + 1 if loss > max(WILD_FACTOR * seat.first_loss, self.objective.chance) else 0
        )
        if seat.wild < WILD_LIMIT:
            return None
        seat.bad_layer = seat.bad_layer or self._bad_layer(seat)
        return seat.bad_layer

    def _bad_layer(self, seat: Seat) -> str | None:
        """The layer to blame for a bad window, found by running its passes again, this candidate alone.

        The first layer whose output was not finite; else the last one whose gradient was not; else the
        first whose output has grown far beyond the frozen base's.
        """
        layers, grown = self.packed.layers(), None
        for micro, rows in enumerate(seat.window):
            one = assemble(
                [replace(seat, micro=micro)], {seat.id: rows}, self.rows, self.pad_id, self.task
            )
            outputs = self._watch(layers, one, one.routing)
            if bad := first_bad(outputs):
                return bad
            grown = grown or first_grown(outputs, self._watch(layers, one, BASE))
        return last_bad_gradient(seat.adapter.arena, list(layers)) or grown

    def _watch(self, layers: Mapping[str, nn.Module], one: Pass, routing: Routing) -> dict[str, float]:
        batch = one.batch.to(self.packed.device)
        with self.packed.route(routing) as model, noisy_embeddings(model, one.noises):
            return largest_outputs(layers, lambda: self.objective.rows(model, batch))

    def _note_memory(self, group: Sequence[Seat]) -> None:
        """Called where a pass holds most: after forward, before backward."""
        if self.packed.device.type == "cuda":
            used = torch.cuda.max_memory_allocated(self.packed.device)
        else:
            used = int(self._process.memory_info().rss)
        for seat in group:
            seat.peak_bytes = max(seat.peak_bytes, used)

    # -- scoring and ending
    # --------------------------------------------------------------------------------------

    def due(self) -> list[str]:
        """Candidates that stand at one of their evaluation steps (between optimiser steps)."""
        return [
            seat.id
            for seat in self.seats.values()
            if not seat.window and seat.step in seat.evaluation_steps
        ]

    def diverged(self) -> list[str]:
        """Candidates past saving; `Seat.bad_layer` says where it began."""
        return [
            seat.id
            for seat in self.seats.values()
            if seat.nonfinite >= NONFINITE_LIMIT or seat.wild >= WILD_LIMIT
        ]

    def finished(self) -> list[str]:
        return [seat.id for seat in self.seats.values() if seat.step >= seat.planned_steps]

    def evaluate(
        self, trials: Sequence[str], split: str = "validation", rows: Sequence[Row] | None = None
    ) -> dict[str, Score]:
        """Score candidates on a split in shared passes; on validation, remember each
        one's best weights."""
        chosen = self.validation if rows is None else rows
        sums = self.row_sums(chosen, trials, workers=self.workers)
        scores = {
            trial: score_of(sums[trial], split, self.objective, self.decide_by) for trial in trials
        }
        if rows is None:
            for trial, score in scores.items():
                if self.gauge:
                    self.gauge.scored(self.seats[trial], score)
                self._keep_best(self.seats[trial], score)
        return scores

    def row_sums(
        self, rows: Sequence[Row], trials: Sequence[str], *, workers: Workers | None = None
    ) -> dict[str, RowSums]:
        """Row sums of adapters in the pack, or with none of the bare base under the key ""; as
        `evals.scoring.row_sums`, and with less at a time when memory runs out."""
        return self._row_sums(rows, list(trials), EVALUATION_FACTOR * self.token_budget, workers)

    def _row_sums(
        self, rows: Sequence[Row], trials: list[str], budget: int, workers: Workers | None
    ) -> dict[str, RowSums]:
        """Score in passes of at most `budget` tokens; smaller ones, then fewer
        candidates, when memory runs out."""
        try:
            return row_sums(
                self.packed,
                self.objective,
                rows,
                trials,
                task=self.task,
                pad_id=self.pad_id,
                token_budget=budget,
                workers=workers,
            )
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        self.free_memory()
        whom = f"{len(trials)} candidates" if trials else "the bare base"
        text = f"memory ran out while scoring {whom} in passes of {budget} tokens: trying smaller ones"
        self._notes.append(Event("note", data={"text": text, "token_budget": budget}))
        longest = max(len(row.input_ids) for row in rows)
        if budget > longest * max(1, len(trials)):
            return self._row_sums(rows, trials, budget // 2, workers)
        if len(trials) > 1:
            half = len(trials) // 2
            return self._row_sums(rows, trials[:half], budget, workers) | self._row_sums(
                rows, trials[half:], budget, workers
            )
        raise RunError(
            f"memory ran out while scoring one row of {longest} tokens", next="set data.max_length lower"
        )

    def _keep_best(self, seat: Seat, score: Score) -> None:
        if not math.isfinite(score.metrics["loss"]):
            return
        if seat.best is None or quality(score, self.decide_by) < quality(seat.best, self.decide_by):
            seat.best, seat.best_step, seat.best_weights = score, seat.step, self._snapshot(seat)

    def _snapshot(self, seat: Seat) -> Tensor:
        """A copy of a candidate's weights, on the host where the device has no room for it."""
        try:
            return seat.adapter.snapshot()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        return seat.adapter.arena.weights.to("cpu", copy=True)


def _held_by_others() -> str:
    """ " (other processes hold 59.5 GiB of its 80.0 GiB)", where they do."""
    held = held_by_others_now()
    return f" ({held})" if held else ""


def quality(score: Score, decide_by: str) -> tuple[float, float]:
    """Smaller is better: the deciding metric, then the loss."""
    loss = score.metrics["loss"]
    return (loss, loss) if decide_by.endswith("loss") else (-score.metrics[decide_by], loss)
