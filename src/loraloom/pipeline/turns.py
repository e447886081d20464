"""What is done with the candidates of one worker, turn by turn: fill the pack, train, score, let go of
those that are done."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import cast

from loraloom.pipeline.diagnosing import may_end
from loraloom.pipeline.job import Job
from loraloom.pipeline.obey import Commands
from loraloom.pipeline.queue import Queue
from loraloom.pipeline.write_timer import WriteTimer
from loraloom.records import EndStatus
from loraloom.train.orders import (
    End,
    Evaluate,
    GoOn,
    Join,
    KeepEach,
    Order,
    Pause,
    Report,
    SeatView,
    Spare,
    TakeBase,
    Train,
)

TURN_SECONDS = 1.0
"""How long a worker among several trains before it reports; a turn of the only one is a tick."""

Course = Generator[Sequence[Order] | None, Report | None]
"""Orders go out, the report of each turn comes back. None for orders: nothing to do until something
changes elsewhere."""


class Pack:
    """The pack of one worker, which sees it through reports alone.

    Attributes:
        seats: its candidates as they were last reported.
        size: how many train at once.
        idle: whether it has nothing to do.
        course: its turns; to be sent each report.
    """

    def __init__(
        self,
        worker: str,
        queue: Queue,
        commands: Commands,
        *,
        several: bool,
        expired: Callable[[], bool],
        stop: Callable[[], bool],
        others_idle: Callable[[], bool],
    ) -> None:
        self.worker, self.queue, self.several = worker, queue, several
        self.log, self.recorder, self._commands = queue.log, queue.recorder, commands
        self.size = self.log.pack_size or 1
        self.idle = False
        self._expired, self._stop, self._others_idle = expired, stop, others_idle
        self._timer = WriteTimer(saves=several)
        self._scored: set[str] = set()
        self.course = self._course()

    @property
    def seats(self) -> Mapping[str, SeatView]:
        return self.queue.seats.get(self.worker, {})

    def _course(self) -> Course:
        first = yield from self.do()
        self.size = first.pack_size or self.size
        yield from self.do(TakeBase(self.log.base_score))
        if not self.several:  # a run that goes on has candidates in its pack already, and some that wait
            self.queue.waiting = dict(first.kept)
        while True:
            yield from self._commands.turn(self)
            yield from self._heed()
            if not (self._expired() and self.recorder.count_ended):
                yield from self._fill()
                if self.queue.waiting and not self.seats and self._others_idle():
                    # The last that the others waited for ended by itself.
                    self.queue.listen()
                    yield from self._heed()
                    yield from self._fill()
            yield from self._keep(now=self._stop() or not self.seats)
            if self._stop() or not self.seats:
                if not self._stop():
                    self.queue.relieve(self.worker)
                yield None
                continue
            yield from self.do(Train(TURN_SECONDS if self.several else 0.0))
            self.log.turns += 1
            for trial, seat in list(self.seats.items()):
                if seat.diverged:
                    yield from self._advise_end(trial, "diverged", seat.diverged)
            yield from self._score()
            for trial, seat in list(self.seats.items()):
                if seat.finished:
                    yield from self.end(trial, "completed", None)
            if self._expired():
                yield from self._end_all("the time that was allowed is used up")

    def do(self, *orders: Order) -> Generator[Sequence[Order], Report | None, Report]:
        """One turn of the worker."""
        report = yield orders
        assert report is not None
        self.queue.reported(self.worker, report)
        for event in report.events:
            # What was taken up from an earlier state goes part of its way again, and that part is
            # written down already.
            if event.kind != "step" or (event.step or 0) > self.queue.known.get(event.trial or "", 0):
                self.recorder.send(event)
        return report

    def _fill(self) -> Course:
        while len(self.seats) < self.size and (job := self.queue.next_job(self.worker)):
            trial, kept = job.candidate.id, self.queue.kept.get(job.candidate.id)
            self.queue.moves(trial, self.worker, job)
            generation = self.queue.generation if self.several else 0
            yield from self.do(
                GoOn(trial, kept, generation) if kept else Join(job.candidate, generation)
            )
            self.queue.moved(trial)
            if trial not in self.seats:
                self._hold(job)
                continue
            self.queue.waiting.pop(trial, None)
            if trial in self.recorder.records:
                self.recorder.going_on(self.seats[trial], self.worker if self.several else None)
            else:
                self.recorder.started(job, self.seats[trial], self.worker if self.several else None)

    def _hold(self, job: Job) -> None:
        """There is no memory for one more: it joins when another has left, and no more train at once
        than now."""
        self.log.held.append(job)
        self.size = len(self.seats)
        if not self.several:
            self.log.pack_size = self.size
        now = "1 trains" if self.size == 1 else f"{self.size} train"
        self.recorder.note(
            f"memory ran out when {job.candidate.id} was to join: from here on {now} at once"
        )

    def _score(self) -> Course:
        if not any(seat.due for seat in self.seats.values()):
            return
        report = yield from self.do(Evaluate())
        for trial, score in report.scores.items():
            seat = self.seats[trial]
            if seat.step <= self.queue.told.get(trial, 0):
                continue  # it goes part of its way again
            self.queue.told[trial] = seat.step
            self.recorder.scored(trial, score, seat.step, progress=seat.progress, epoch=seat.epoch)
            if seat.best_now:
                self.recorder.emit("best", trial, seat.step)
            self.queue.source.scored(seat, score)
        self._scored |= report.scores.keys()
        self._timer.urgent = self._timer.urgent or self.several
        self.queue.listen()
        yield from self._heed()

    def _heed(self) -> Course:
        """Do what was decided over candidates of this pack, and over those who wait."""
        for decision in list(self.queue.decided):
            trial, status, reason = decision
            seat = self.seats.get(trial)
            if decision not in self.queue.decided or not (seat or self.queue.is_free(trial)):
                continue  # another pack has done it, or will
            if seat and seat.step < self.queue.told.get(trial, 0):
                continue  # it was decided where it has to come again
            if seat and seat.finished and status == "waiting":
                self.queue.forget_decisions(trial)  # it was decided while it took its last steps
                continue
            if status != "waiting":
                yield from self._advise_end(trial, cast(EndStatus, status), reason)
            elif seat:
                self.recorder.waits(seat, reason)
                self.queue.pauses(trial)
                report = yield from self.do(Pause(trial))
                self.queue.paused(trial, report.kept[trial])
            if decision in self.queue.decided:
                self.queue.decided.remove(decision)

    def _end_all(self, reason: str) -> Course:
        """End all that live; as many of the best as train at once are saved, whether they trained or
        waited."""
        costs = {trial: seat.best_cost for trial, seat in self.seats.items()}
        costs |= {
            trial: kept.cost for trial, kept in self.queue.waiting.items() if self.queue.is_free(trial)
        }
        scored = {trial: cost for trial, cost in costs.items() if cost is not None}
        best = sorted(costs, key=lambda trial: scored.get(trial, math.inf))[: self.size]
        for trial in costs:
            if trial in self.seats or self.queue.is_free(trial):
                yield from self.end(trial, "pruned", reason, keep=trial in best and trial in scored)

    def _advise_end(self, trial: str, status: EndStatus, reason: str) -> Course:
        """End a candidate before its last step, unless the user asked only to be told."""
        seat = self.seats.get(trial)
        if seat is None or may_end(self.log.prepared.config, seat, status):
            yield from self.end(trial, status, reason)
        else:
            yield from self.do(Spare(trial, status, reason))

    def end(self, trial: str, status: EndStatus, reason: str | None, *, keep: bool = False) -> Course:
        """Let a candidate go; those that are completed or worth keeping are saved as they were at their
        best."""
        save_to = self.recorder.adapter_folder(trial) if keep or status == "completed" else None
        settings = self.recorder.records[trial].job.settings
        kept = None if trial in self.seats else self.queue.waiting[trial]
        if kept:
            self.queue.moves(trial, self.worker)
        report = yield from self.do(End(trial, status, reason, settings, save_to, kept))
        if kept:
            self.queue.moved(trial)
        for ended in report.ended:
            self._timer.urgent = True
            self.recorder.ended(ended)
            self.queue.ended(trial, status, ended.best)

    def _keep(self, *, now: bool) -> Course:
        """Keep what would be a pity to do again, if it is time.

        Of several workers each may be gone at any moment: a candidate is kept as soon as it was scored,
        so that no more than an interval of it is ever lost, and all of a pack from time to time.
        """
        if not (now or self._timer.due()):
            return
        if not self.several:
            with self._timer.writing():
                yield from self.do(self.log.checkpoint())
            return
        whole = now or self._timer.late() or not self._timer.urgent
        trials = [trial for trial in self.seats if whole or trial in self._scored]
        self._scored.clear()
        if trials:
            with self._timer.writing(whole=whole):
                yield from self.do(KeepEach(trials))
