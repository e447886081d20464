"""Keep the pack full: ask for candidates, train, score, let go of those that are done.
The same for train and tune.

The driver decides and a worker computes: it gives orders through an `Executor` and sees
plain reports, never a live candidate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, cast

from loraloom.execute import Executor
from loraloom.pipeline.diagnosing import may_end
from loraloom.pipeline.job import Job
from loraloom.pipeline.run_log import RunLog
from loraloom.pipeline.stop import listening
from loraloom.pipeline.write_timer import WriteTimer
from loraloom.records import EndStatus, Score, TrialStatus
from loraloom.train.orders import (
    End,
    Ended,
    Evaluate,
    GoOn,
    Join,
    Order,
    Pause,
    Report,
    SeatView,
    Spare,
    Train,
)


class Source(Protocol):
    """Where candidates come from and who judges them."""

    def ask(self) -> Job | None:
        """The next candidate, or None when there is none now. One that waits is asked
        for again to go on."""
        ...

    def scored(self, seat: SeatView, score: Score) -> None:
        """One evaluation, as it happens."""
        ...

    def verdicts(self) -> Sequence[tuple[str, TrialStatus, str]]:
        """(trial, status, reason) of candidates that should leave the pack now;
        "waiting" for those that are to come back."""
        ...

    def ended(self, ended: Ended) -> None:
        """A candidate has left."""
        ...


class Driver:
    """Runs candidates of a source on the one worker of an executor.

    Attributes:
        seats: candidates in the pack, as they were last reported.
        waiting: those who wait, with the mean cost of their best evaluation so far.
        expired: says that the time is up: living candidates are then ended with what they have.
    """

    def __init__(
        self, executor: Executor, log: RunLog, expired: Callable[[], bool] | None = None
    ) -> None:
        self.executor, self.log, self.recorder = executor, log, log.recorder
        self.expired = expired or log.expired
        self.pack_size = log.pack_size or 1
        (self._worker,) = executor.workers()
        self._keeper = WriteTimer(lambda: self._do(log.checkpoint()))
        self.seats: Mapping[str, SeatView] = {}
        self.waiting: Mapping[str, float | None] = {}

    def run(self, source: Source) -> None:
        """Until the source has nothing left and the pack is empty.

        Raises:
            KeyboardInterrupt: Ctrl-C; the tick was finished and a checkpoint written.
        """
        with listening() as stop:
            self._run(source, stop)

    def _run(self, source: Source, stop: Callable[[], bool]) -> None:
        self._do()  # a run that goes on has candidates in its pack already
        while True:
            if not (self.recorder.count_ended and self.expired()):
                self._fill(source)
                if self.waiting and not self.seats:
                    # The last that the others waited for ended by itself.
                    self._heed(source)
                    self._fill(source)
            self._keep(now=stop() or not self.seats)
            if stop():
                raise KeyboardInterrupt
            if not self.seats:
                return
            self._do(Train())
            for trial, seat in list(self.seats.items()):
                if seat.diverged:
                    self._advise_end(source, trial, "diverged", seat.diverged)
            self._score(source)
            for trial, seat in list(self.seats.items()):
                if seat.finished:
                    self._end(source, trial, "completed", None)
            if self.expired():
                self._end_all(source, "the time that was allowed is used up")

    def _do(self, *orders: Order) -> Report:
        """One turn of the worker."""
        self.executor.send(self._worker, orders)
        report = self.executor.next()
        self.seats, self.waiting = report.seats, report.waiting
        for event in report.events:
            self.recorder.send(event)
        return report

    def _fill(self, source: Source) -> None:
        while len(self.seats) < self.pack_size:
            job = self.log.held.pop() if self.log.held else source.ask()
            if job is None:
                return
            trial = job.candidate.id
            waited = trial in self.waiting
            self._do(GoOn(trial) if waited else Join(job.candidate))
            if trial not in self.seats:
                self._hold(job)
            elif waited:
                self.recorder.going_on(self.seats[trial])
            else:
                self.recorder.started(job, self.seats[trial])

    def _hold(self, job: Job) -> None:
        """There is no memory for one more: it joins when another has left, and no more
        train at once than now."""
        self.log.held.append(job)
        self.pack_size = self.log.pack_size = len(self.seats)
        now = "1 trains" if self.pack_size == 1 else f"{self.pack_size} train"
        self.recorder.note(
            f"memory ran out when {job.candidate.id} was to join: from here on {now} at once"
        )

    def _score(self, source: Source) -> None:
        if not any(seat.due for seat in self.seats.values()):
            return
        for trial, score in self._do(Evaluate()).scores.items():
            seat = self.seats[trial]
            self.recorder.scored(trial, score, seat.step, progress=seat.progress, epoch=seat.epoch)
            if seat.best_now:
                self.recorder.emit("best", trial, seat.step)
            source.scored(seat, score)
        self._heed(source)

    def _heed(self, source: Source) -> None:
        """Do what the source says of its candidates."""
        for trial, status, reason in source.verdicts():
            if status == "waiting" and trial in self.seats:
                self.recorder.waits(self.seats[trial], reason)
                self._do(Pause(trial))
            elif trial in self.seats or trial in self.waiting:
                self._advise_end(source, trial, cast(EndStatus, status), reason)

    def _end_all(self, source: Source, reason: str) -> None:
        """End all that live; as many of the best as train at once are saved, whether
        they trained or waited."""
        costs = {trial: seat.best_cost for trial, seat in self.seats.items()} | dict(self.waiting)
        scored = {trial: cost for trial, cost in costs.items() if cost is not None}
        kept = sorted(costs, key=lambda trial: scored.get(trial, math.inf))[: self.pack_size]
        for trial in costs:
            self._end(source, trial, "pruned", reason, keep=trial in kept and trial in scored)

    def _advise_end(self, source: Source, trial: str, status: EndStatus, reason: str) -> None:
        """End a candidate before its last step, unless the user asked only to be told."""
        if trial in self.waiting or may_end(self.log.prepared.config, self.seats[trial], status):
            self._end(source, trial, status, reason)
        else:
            self._do(Spare(trial, status, reason))

    def _end(
        self, source: Source, trial: str, status: EndStatus, reason: str | None, *, keep: bool = False
    ) -> None:
        """Let a candidate go; those that are completed or worth keeping are saved as
        they were at their best."""
        save_to = self.recorder.adapter_folder(trial) if keep or status == "completed" else None
        settings = self.recorder.records[trial].job.settings
        for ended in self._do(End(trial, status, reason, settings, save_to)).ended:
            self._keeper.urgent = True
            self.recorder.ended(ended)
            source.ended(ended)

    def _keep(self, *, now: bool) -> None:
        (self._keeper.now if now else self._keeper.maybe)()
