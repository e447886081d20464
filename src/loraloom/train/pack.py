"""The packed loop: many candidates on one frozen base, each on its own clock.

A tick takes one micro-batch from every live candidate. Each candidate has its own data order, loss,
accumulation window, schedule, clipping and optimiser, so that it is trained exactly as it would be
alone; they share only the frozen layers that a pass runs through. Candidates join and leave between
ticks. What happens is told as Events.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import psutil
import torch
from torch import Tensor

from loraloom.data.batches import Numbers, next_passes, supervised
from loraloom.data.joined import padded_tokens
from loraloom.data.rows import Example, Row
from loraloom.errors import ModelError
from loraloom.evals.neighbours import refuse_seen_neighbours
from loraloom.evals.objective import Objective
from loraloom.evals.preference import PreferenceObjective, crossed
from loraloom.evals.scoring import EVALUATION_FACTOR, RowSums, row_sums, score_of
from loraloom.lora.device_faults import is_out_of_memory
from loraloom.lora.freed_memory import free_memory
from loraloom.lora.neftune import noisy_embeddings
from loraloom.lora.packed import PackedModel
from loraloom.lora.streaming import is_streamed
from loraloom.lora.transfer import fetch, send
from loraloom.lora.workers import Workers
from loraloom.records import Event, Score, Task
from loraloom.train.cuda_graph import PassGraphs
from loraloom.train.divergence import DivergenceWatch, has_diverged
from loraloom.train.fast_path import unused
from loraloom.train.optim import Step, gradient_norms, step_all
from loraloom.train.out_of_memory import score_with_less, smaller_passes
from loraloom.train.seat import OrderOf, Pass, Seat, assemble, shuffled
from loraloom.train.seating import Seating
from loraloom.train.signals import Gauge, first_norms


class PackTrainer(Seating):
    """Trains whatever candidates sit in the pack.

    Args:
        packed: the frozen base with its adapters.
        rows: training rows, encoded and cut.
        objective: the task's loss.
        token_budget: padded tokens of one pass; a pass with one candidate's micro-batch may exceed it.
        validation: rows that `evaluate` scores on; empty for none.
        decide_by: metric that picks a candidate's best checkpoint: "loss" or the objective's share that
            is right.
        checkpointing: keep only the input of each repeated block for the backward pass, and run the
            block again there; "offload" keeps the inputs on the host.
        signals: collect what diagnosis looks at, in `Seat.signals`.
        workers: passes at once; None for as many as the device has use for.
        order_of: which rows a candidate's steps take; None for epochs of all rows, shuffled.
        graphs: record passes that repeat as CUDA graphs; None for where the kernels are used, which make
            them repeat.
    """

    def __init__(
        self,
        packed: PackedModel,
        rows: Sequence[Example],
        objective: Objective,
        *,
        task: Task,
        pad_id: int,
        validation: Sequence[Example] = (),
        decide_by: str = "loss",
        token_budget: int = 4096,
        checkpointing: bool | Literal["offload"] = False,
        signals: bool = True,
        workers: int | None = None,
        graphs: bool | None = None,
        order_of: OrderOf | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        # Rows of another kind stand on their own: they have no part in what a window is divided by.
        alone = [isinstance(row, Row) and row.loss != "nll" for row in rows]
        weights = [0 if one else supervised(row, task) for row, one in zip(rows, alone, strict=True)]
        # Pairs joined or not: a run may go on where the other way is the right one.
        order_of = order_of or shuffled([padded_tokens(row) for row in rows])
        super().__init__(packed, rows, weights, order_of)
        self.objective = objective
        self.task: Task = task
        self.pad_id = pad_id
        self.validation = validation
        self.decide_by = decide_by
        self.token_budget = token_budget
        self.clock = clock
        self.lengths = [padded_tokens(row, joined=objective.joined) for row in rows]
        self.workers = Workers(packed.device, workers)
        self.gauge = Gauge(packed, objective.metric) if signals else None
        streamed = is_streamed(packed.model)
        if streamed and not checkpointing:
            raise ModelError(
                "a streamed base is trained with checkpointing",
                got="training.gradient_checkpointing: false",
                need="blocks that are run again on the way back, when their weights are there",
                next="training.gradient_checkpointing: true",
            )
        if checkpointing:
            packed.checkpoint(offload=checkpointing == "offload")
        self.graphs = self._graphs(not streamed and (packed.kernels if graphs is None else graphs))
        self.divergence = DivergenceWatch(packed, objective, rows, pad_id=pad_id, task=task)
        with packed.base_only() as model:
            refuse_seen_neighbours(objective, model, task, pad_id)
        self._notes: list[Event] = []
        self._told: set[str] = set()
        self._process = psutil.Process()

    def _graphs(self, wanted: bool) -> PassGraphs | None:
        """Passes that run at once cannot be recorded, nor those that send something to the host."""
        if not wanted or self.packed.device.type != "cuda" or self.workers.count > 1:
            return None
        if self.packed.host_inputs is not None:
            return None
        sides = (side for row in self.rows for side in row.sides)
        answer = max(len(side.labels) for side in sides) if self.task == "seq2seq_lm" else 0
        return PassGraphs(self.packed, self.objective, self.pad_id, (max(self.lengths), answer))

    # -- going on later ---------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """As of the seating; and how much a pass may hold, which memory may have taught."""
        return {**super().state_dict(), "token_budget": self.token_budget}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.token_budget = state["token_budget"]

    # -- one tick ---------------------------------------------------------------------------------------

    def tick(self) -> list[Event]:
        """One micro-batch of every live candidate; those whose window is full take an optimiser step."""
        started = self.clock()
        present = list(self.seats.values())
        # What scoring has noted since the last tick comes first.
        events = self._notes
        self._notes = []
        waiting = self._next_micro_batches(present)
        together = self._may_share(present)
        while waiting:
            passes = next_passes(waiting, self.lengths, self.token_budget, self.workers.count)
            groups = [[self.seats[trial] for trial in one] for one in passes]
            fitted = self._run_passes(groups, waiting, together=together)
            for group, fits in zip(groups, fitted, strict=True):
                if fits:
                    for seat in group:
                        del waiting[seat.id]
                else:
                    events.append(self._shrink(group, waiting))
                    waiting |= self._next_micro_batches(group)
        events += self._finish_windows(present)
        # A tick is shared work: what it took is no candidate's own, and each bears an equal part.
        share = (self.clock() - started) / max(len(present), 1)
        for seat in present:
            seat.seconds += share
        return events + self._unused()

    def note(self, text: str) -> None:
        """Tell the user something with the next tick."""
        self._notes.append(Event("note", data={"text": text}))

    def _unused(self) -> list[Event]:
        """What was not told yet of a fast path that does not work here."""
        new = [text for text in unused(self.packed, self.graphs) if text not in self._told]
        self._told.update(new)
        return [Event("note", data={"text": text}) for text in new]

    def _next_micro_batches(self, seats: Sequence[Seat]) -> dict[str, Numbers]:
        opened = [seat for seat in seats if not seat.window]
        for seat in opened:
            seat.open_window(self.weights)
        self._find_moves(opened)
        return {seat.id: seat.window[seat.micro] for seat in seats}

    def _find_moves(self, opened: Sequence[Seat]) -> None:
        """How far candidates have moved from their reference, where their loss asks for that: estimated
        once for all of a window, so that it does not matter into how many passes that is cut. Windows
        with the same rows are asked about together."""
        alike: dict[tuple[int, ...], list[Seat]] = {}
        for seat in opened:
            spec = seat.candidate.training.preference
            if spec is not None and "kto" in spec.loss_type:
                numbers = tuple(int(i) for micro in seat.window for i in micro)
                alike.setdefault(numbers, []).append(seat)
        for numbers, seats in alike.items():
            assert isinstance(self.objective, PreferenceObjective)
            rows = crossed([self.rows[i] for i in numbers], max(self.lengths))
            sums = self.row_sums(rows, [seat.id for seat in seats])
            reference = self.objective.reference.found(rows).numpy()
            for seat in seats:
                seat.window_kl = max(0.0, float((-sums[seat.id].loss - reference).mean()))

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
        """Run a pass; False when memory ran out, with nothing counted but with gradients in an unknown
        state."""
        try:
            self._run_pass(group, micro)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return False
        return True

    def _run_pass(self, group: Sequence[Seat], micro: dict[str, Numbers]) -> None:
        group = group if self.graphs is None else self.graphs.ordered(group, micro)
        joined = self.objective.joined
        one = assemble(group, micro, self.rows, self.pad_id, self.task, joined=joined)
        if self.graphs is None:
            losses = self._through(one, group)
        else:
            fresh = not any(seat.micro for seat in group)
            losses = self.graphs.run(one, lambda one: self._through(one, group), fresh=fresh)
            self._note_memory(group)
        lengths = one.batch.attention_mask.sum(1)
        for seat, segment, span in zip(group, one.routing.segments, one.spans, strict=True):
            tokens = int(lengths[segment.start : segment.stop].sum())
            seat.pass_losses = losses[span]
            seat.tokens += tokens
            seat.window_tokens += tokens
            seat.micro += 1

    def _through(self, one: Pass, group: Sequence[Seat]) -> Tensor:
        """Forwards and backwards. Gives each row's loss as the window counts it, on the device."""
        batch = one.batch.to(self.packed.device)
        with self.packed.route(one.routing) as model, noisy_embeddings(model, one.noises):
            result = self.objective.rows(model, batch, one.at)
            # Between forward and backward a pass holds most.
            self._note_memory(group)
            weighted = result.loss * send(one.shares.to(result.loss.dtype), self.packed.device)
            weighted.sum().backward()
        return weighted.detach()

    def free_memory(self) -> None:
        """Give back what failed work left behind, and what graphs hold; call it outside the `except`
        block."""
        if self.graphs is not None:
            self.graphs.stop("memory ran out")
        free_memory(self.packed.device)

    def _shrink(self, group: Sequence[Seat], micro: Mapping[str, Numbers]) -> Event:
        """A pass found no memory: the next one of these candidates is smaller."""
        self.free_memory()
        self.token_budget, note = smaller_passes(group, micro, self.lengths, self.token_budget)
        return note

    def _finish_windows(self, present: Sequence[Seat]) -> list[Event]:
        """Count the losses of a tick, and step those whose window is full.

        All that the host has to know of a tick comes in one copy: it waits for the device here, and
        nowhere else.
        """
        full = [seat for seat in present if seat.micro == len(seat.window)]
        for seat in full:
            seat.adapter.clear_held()
        new = [seat for seat in full if self.gauge and seat.signals.first_norms is None]
        losses = [seat.pass_losses for seat in present if seat.pass_losses is not None]
        firsts = [norm for seat in new for norm in first_norms(seat.adapter)]
        # Read back below in this order.
        read = iter(fetch([*losses, *gradient_norms([seat.adapter.arena for seat in full]), *firsts]))
        for seat in present:
            seat.window_loss += float(next(read).sum())
            seat.pass_losses = None
        steps = [Step(seat.optimizer, seat.adapter, seat.learning_rate, next(read)) for seat in full]
        for seat in new:
            seat.signals.first_norms = float(next(read)), float(next(read))
        blamed: list[str | None] = []
        for seat, step in zip(full, steps, strict=True):
            # Before the step, which clears the gradients that are looked at.
            blamed.append(self.divergence.judge(seat, seat.window_loss, float(step.norm)))
            if self.gauge:
                self.gauge.stepped(seat, seat.window_loss, float(step.norm), step.rate)
        step_all(steps, kernels=self.packed.kernels)
        return [self._close_window(*one) for one in zip(full, steps, blamed, strict=True)]

    def _close_window(self, seat: Seat, step: Step, blamed: str | None) -> Event:
        loss = seat.window_loss
        seat.close_window()
        data: dict[str, Any] = {
            "loss": loss,
            "learning_rate": step.rate,
            "grad_norm": float(step.norm),
            "tokens": seat.tokens,
            "epoch": seat.epoch,
            "planned_steps": seat.planned_steps,
            "tokens_per_second": seat.tokens / max(seat.seconds, 1e-9),
        }
        if blamed:
            data["first_bad_layer"] = blamed
        return Event("step", seat.id, seat.step, data=data)

    def _note_memory(self, group: Sequence[Seat]) -> None:
        """Each candidate's peak, that of the whole process: what a pass takes is shared."""
        if self.packed.device.type == "cuda":
            used = torch.cuda.max_memory_allocated(self.packed.device)
        else:
            used = int(self._process.memory_info().rss)
        for seat in group:
            seat.peak_bytes = max(seat.peak_bytes, used)

    # -- scoring and ending -----------------------------------------------------------------------------

    def due(self) -> list[str]:
        """Candidates that stand at one of their evaluation steps (between optimiser steps)."""
        between = [seat for seat in self.seats.values() if not seat.window]
        return [seat.id for seat in between if seat.step in seat.evaluation_steps]

    def diverged(self) -> list[str]:
        """Candidates past saving; `Seat.bad_layer` says where it began."""
        return [seat.id for seat in self.seats.values() if has_diverged(seat)]

    def finished(self) -> list[str]:
        return [seat.id for seat in self.seats.values() if seat.step >= seat.planned_steps]

    def evaluate(
        self, trials: Sequence[str], split: str = "validation", rows: Sequence[Example] | None = None
    ) -> dict[str, Score]:
        """Score candidates on a split in shared passes; on validation, remember each one's best
        weights."""
        chosen = self.validation if rows is None else rows
        sums = self.row_sums(chosen, trials, workers=self.workers)
        scores: dict[str, Score] = {}
        for trial in trials:
            formed = self.seats[trial].candidate.training.preference
            score = score_of(sums[trial], split, self.objective, self.decide_by, formed)
            scores[trial] = score
            if rows is None:
                # Before the best is brought up to date: a reading compares the two.
                if self.gauge:
                    self.gauge.scored(self.seats[trial], score)
                self.seats[trial].keep_best(score, self.decide_by)
        return scores

    def row_sums(
        self, rows: Sequence[Example], trials: Sequence[str], *, workers: Workers | None = None
    ) -> dict[str, RowSums]:
        """Row sums of adapters in the pack, or with none of the bare base under the key ""; as
        `evals.scoring.row_sums`, and with less at a time when memory runs out."""
        score = partial(
            row_sums,
            self.packed,
            self.objective,
            rows,
            task=self.task,
            pad_id=self.pad_id,
            workers=workers,
        )

        def failed(note: Event) -> None:
            self.free_memory()
            self._notes.append(note)

        budget = EVALUATION_FACTOR * self.token_budget
        joined = self.objective.joined
        longest = max((padded_tokens(row, joined=joined) for row in rows), default=0)
        return score_with_less(score, trials, budget, longest=longest, failed=failed)
