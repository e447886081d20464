"""The half of a run that computes: it holds a pack, obeys orders, and reports in plain numbers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from loraloom.lora.device_faults import is_out_of_memory
from loraloom.records import Event, Score
from loraloom.search.compare import mean_cost
from loraloom.train import checkpoint
from loraloom.train.orders import (
    End,
    Ended,
    Evaluate,
    Examined,
    GoOn,
    Join,
    Keep,
    KeepEach,
    Kept,
    Lend,
    Order,
    Pause,
    Report,
    ScoreSaved,
    SeatView,
    Spare,
    TakeBase,
    Train,
)
from loraloom.train.pack import PackTrainer
from loraloom.train.resume import score_of_plain
from loraloom.train.seat import Seat
from loraloom.train.start import lend, lend_kept

Save = Callable[[Seat, Path], float]
"""Saves a candidate's adapter in a folder, proves it, and gives the largest difference of logits."""
Examine = Callable[[Seat, End], Examined | None]
"""Looks at a candidate that is about to leave; its last weights are still in place."""
ScoreOf = Callable[[ScoreSaved], Mapping[str, Score]]
"""Scores saved adapters on a split."""


class Worker:
    """Obeys orders for the candidates of one pack.

    Args:
        name: what reports are signed with.
        trainer: with those who trained or waited when a run stopped, if it goes on.
        score: for `ScoreSaved`; None where nobody orders it.
        take_base: for `TakeBase`; None where nobody orders it.
        shared: whether other workers may go on with what this one keeps.
        pack_size: how many it trains at once, where it decides that by itself.
    """

    def __init__(
        self,
        name: str,
        trainer: PackTrainer,
        save: Save,
        examine: Examine,
        *,
        score: ScoreOf | None = None,
        take_base: Callable[[Score | None], None] | None = None,
        shared: bool = False,
        pack_size: int | None = None,
    ) -> None:
        self.name, self.trainer, self.shared, self.pack_size = name, trainer, shared, pack_size
        self._save, self._examine, self._score, self._take_base = save, examine, score, take_base
        self._costs: dict[str, tuple[Score, float]] = {}

    def obey(self, orders: Sequence[Order]) -> Report:
        """Do what is ordered, one after the other."""
        events: list[Event] = []
        scores: dict[str, Score] = {}
        ended: list[Ended] = []
        kept = {} if orders else {trial: self._kept(trial) for trial in self.trainer.shelf}
        for order in orders:
            match order:
                case Train():
                    events += self._ticks(order.seconds)
                case Evaluate():
                    scores |= self.trainer.evaluate(self.trainer.due())
                case End():
                    ended.append(self._end(order))
                case Join():
                    self._seated(lambda made=order.candidate: self.trainer.join(made))
                    self.trainer.shelf.generations[order.candidate.id] = order.generation
                case Pause():
                    self.trainer.pause(order.trial)
                    kept[order.trial] = self._kept(order.trial)
                case GoOn():
                    self._seated(lambda one=order: self._go_on(one.trial, one.kept))
                    self.trainer.shelf.generations[order.trial] = order.generation
                case Spare():
                    signals = self.trainer.seats[order.trial].signals
                    signals.seen_exit = signals.seen_exit or (order.status, order.reason)
                case Lend():
                    self._lend(order)
                case Keep():
                    checkpoint.save(order.folder, self.trainer, order.run)
                case KeepEach():
                    for trial in order.trials:
                        self.trainer.keep(trial)
                        kept[trial] = self._kept(trial)
                        self.trainer.shelf.drop(trial)
                case ScoreSaved():
                    assert self._score is not None, order
                    scores |= self._score(order)
                case TakeBase():
                    assert self._take_base is not None, order
                    self._take_base(order.score)
        return Report(self.name, events, scores, ended, self._views(), kept, self.pack_size)

    def _ticks(self, seconds: float) -> list[Event]:
        until = time.monotonic() + seconds
        events = self.trainer.tick()
        while time.monotonic() < until and not self._wanted():
            events += self.trainer.tick()
        return events

    def _wanted(self) -> bool:
        """Whether somebody has to decide over a candidate before the next tick."""
        trainer = self.trainer
        return bool((trainer.validation and trainer.due()) or trainer.finished() or trainer.diverged())

    def _seated(self, seat: Callable[[], object]) -> None:
        """Where there is no memory for one more, and others train, it does not join:
        the report tells who is there."""
        try:
            seat()
        except (RuntimeError, MemoryError) as error:
            if not (is_out_of_memory(error) and self.trainer.seats):
                raise
        else:
            return
        self.trainer.free_memory()

    def _go_on(self, trial: str, kept: Kept) -> None:
        # The file may be another worker's.
        self.trainer.shelf.files[trial] = kept.file
        self.trainer.go_on(trial)

    def _lend(self, order: Lend) -> None:
        shelf = self.trainer.shelf
        file = shelf.run_folder / order.start
        if order.kept is None:
            lend(file, self.trainer.seats[order.trial])
        else:
            lend_kept(file, shelf.read_file(order.kept.file)[1])

    def _kept(self, trial: str) -> Kept:
        """What lies of a candidate on the shelf."""
        shelf = self.trainer.shelf
        plain = shelf.look(trial)
        cost = mean_cost(score_of_plain(plain["best"])) if plain["best"] else None
        return Kept(
            shelf.files[trial], plain["step"], cost, shelf.checksum(trial) if self.shared else ""
        )

    def _end(self, order: End) -> Ended:
        if order.kept is not None:
            self._go_on(order.trial, order.kept)
        seat, view = self.trainer.seats[order.trial], self._views()[order.trial]
        examined = self._examine(seat, order)
        if seat.best_weights is not None:
            seat.adapter.restore(seat.best_weights)
        difference = None if order.save_to is None else self._save(seat, order.save_to)
        self.trainer.leave(order.trial)
        self._costs.pop(order.trial, None)
        return Ended(view, order, seat.best, examined, difference)

    def _views(self) -> dict[str, SeatView]:
        due = self.trainer.due() if self.trainer.validation else ()
        finished, diverged = self.trainer.finished(), self.trainer.diverged()
        return {
            trial: self._view(
                seat, due=trial in due, finished=trial in finished, diverged=trial in diverged
            )
            for trial, seat in self.trainer.seats.items()
        }

    def _view(self, seat: Seat, *, due: bool, finished: bool, diverged: bool) -> SeatView:
        return SeatView(
            candidate=seat.candidate,
            step=seat.step,
            planned_steps=seat.planned_steps,
            steps_per_epoch=seat.order.steps_per_epoch,
            trainable_parameters=seat.adapter.arena.numel,
            tokens=seat.tokens,
            seconds=seat.seconds,
            peak_bytes=seat.peak_bytes,
            first_loss=seat.first_loss,
            smoothed_loss=seat.smoothed_loss,
            best_cost=self._best_cost(seat),
            nonfinite=seat.nonfinite,
            waited=_waited(seat),
            best_now=seat.best_step == seat.step,
            due=due,
            finished=finished,
            diverged=_why_diverged(seat) if diverged else None,
            readings=tuple(seat.signals.readings),
        )

    def _best_cost(self, seat: Seat) -> float | None:
        """Worked out once for each best score: it is asked for in every tick, and adds up all rows."""
        if seat.best is None:
            return None
        known = self._costs.get(seat.id)
        if known is None or known[0] is not seat.best:
            known = self._costs[seat.id] = seat.best, mean_cost(seat.best)
        return known[1]


def _waited(seat: Seat) -> int:
    """Evaluations since the best one. Counted on the seat, which a checkpoint keeps."""
    return sum(seat.best_step < step <= seat.step for step in seat.evaluation_steps)


def _why_diverged(seat: Seat) -> str:
    """The step, the kind and the place of a divergence, in one line."""
    kind = (
        "loss or gradient was not finite"
        if seat.nonfinite
        else "the loss stays far above its first value"
    )
    place = f"; first bad layer {seat.bad_layer}" if seat.bad_layer else ""
    return f"{kind} at step {seat.step}{place}"
