"""Keep the pack full: ask for candidates, tick, score, let go of those that are done. The same for train and tune."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from loraloom.pipeline.recorder import Recorder
from loraloom.records import Candidate, EndStatus, Score
from loraloom.train.pack import PackTrainer, Seat


@dataclass(frozen=True)
class Job:
    """A candidate to train, what its settings are called in tables, and why it is there (default, anchor, ...)."""

    candidate: Candidate
    settings: dict[str, object]
    role: str = "sampled"


@dataclass
class Finished:
    """A candidate after training. Its weights are in the saved adapter, not here."""

    job: Job
    status: EndStatus
    best: Score | None
    adapter: str | None
    seconds: float


class Source(Protocol):
    """Where candidates come from and who judges them."""

    def ask(self) -> Job | None:
        """The next candidate, or None when there is none now."""
        ...

    def scored(self, seat: Seat, score: Score) -> None:
        """One evaluation, as it happens."""
        ...

    def verdicts(self) -> Sequence[tuple[str, EndStatus, str]]:
        """(trial, status, reason) of candidates that should leave now."""
        ...

    def ended(self, finished: Finished, seat: Seat, reason: str | None) -> None:
        """A candidate has left."""
        ...


Save = Callable[[Seat], str | None]


@dataclass
class Driver:
    """Runs candidates of a source through a trainer.

    Attributes:
        slots: how many train at once.
        save: called with a completed candidate still in its slot, best weights restored; gives the adapter's path.
        expired: says that the time is up: living candidates are then ended with what they have.
    """

    trainer: PackTrainer
    recorder: Recorder
    slots: int
    save: Save
    expired: Callable[[], bool] = lambda: False
    finished: dict[str, Finished] = field(default_factory=dict[str, Finished])
    _jobs: dict[str, Job] = field(default_factory=dict[str, Job])

    def run(self, source: Source) -> None:
        """Until the source has nothing left and the pack is empty."""
        while True:
            self._fill(source)
            if not self.trainer.seats:
                return
            for event in self.trainer.tick():
                self.recorder.send(event)
            for trial in self.trainer.diverged():
                self._end(source, trial, "diverged", why_diverged(self.trainer.seats[trial]))
            self._score(source)
            for trial in self.trainer.finished():
                self._end(source, trial, "completed", None)
            if self.expired():
                for trial in list(self.trainer.seats):
                    self._end(source, trial, "pruned", "the time that was allowed is used up", keep=True)
                return

    def _fill(self, source: Source) -> None:
        while len(self.trainer.seats) < self.slots:
            job = source.ask()
            if job is None:
                return
            seat = self.trainer.join(job.candidate)
            self._jobs[seat.id] = job
            self.recorder.started(seat, job.settings, job.role)

    def _score(self, source: Source) -> None:
        due = self.trainer.due()
        if not due or not self.trainer.validation:
            return
        for trial, score in self.trainer.evaluate(due).items():
            seat = self.trainer.seats[trial]
            self.recorder.scored(trial, score, seat.step, progress=seat.progress, epoch=seat.epoch)
            if seat.best_step == seat.step:
                self.recorder.emit("best", trial, seat.step)
            source.scored(seat, score)
        for trial, status, reason in source.verdicts():
            if trial in self.trainer.seats:
                self._end(source, trial, status, reason)

    def _end(self, source: Source, trial: str, status: EndStatus, reason: str | None, *, keep: bool = False) -> None:
        """Let a candidate go; completed ones, and with `keep` any that was ever scored, are saved as they were at best."""
        seat = self.trainer.seats[trial]
        if seat.best_weights is not None:
            seat.adapter.restore(seat.best_weights)
        path = self.save(seat) if status == "completed" or (keep and seat.best is not None) else None
        self.trainer.leave(trial)
        finished = Finished(self._jobs.pop(trial), status, seat.best, path, seat.seconds)
        self.finished[trial] = finished
        self.recorder.ended(seat, status, reason, path)
        source.ended(finished, seat, reason)


def why_diverged(seat: Seat) -> str:
    """The step, the kind and the place of a divergence, in one line."""
    kind = "loss or gradient was not finite" if seat.nonfinite else "the loss stays far above its first value"
    place = f"; first bad layer {seat.bad_layer}" if seat.bad_layer else ""
    return f"{kind} at step {seat.step}{place}"
