"""Keep the pack full: ask for candidates, tick, score, let go of those that are done. The same for train and tune."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol, cast

from loraloom.pipeline.keep import Keeper, bare, job_parts, job_to_plain
from loraloom.pipeline.recorder import Recorder
from loraloom.pipeline.stop import listening
from loraloom.records import Candidate, EndStatus, Score, TrialStatus
from loraloom.search.compare import mean_cost
from loraloom.train.pack import PackTrainer, Seat
from loraloom.train.resume import score_of_plain


@dataclass(frozen=True)
class Job:
    """A candidate to train, what its settings are called in tables, and why it is there (default, anchor, ...)."""

    candidate: Candidate
    settings: dict[str, object]
    role: str = "sampled"


@dataclass
class Finished:
    """A candidate after training. Its weights are in the saved adapter, not here.

    Whom it is told to when it ends sees the rows of `best` as well; what is kept of it has its mean cost and error alone.
    """

    job: Job
    status: EndStatus
    best: Score | None
    adapter: str | None
    seconds: float


class Source(Protocol):
    """Where candidates come from and who judges them."""

    def ask(self) -> Job | None:
        """The next candidate, or None when there is none now. One that waits is asked for again to go on."""
        ...

    def scored(self, seat: Seat, score: Score) -> None:
        """One evaluation, as it happens."""
        ...

    def verdicts(self) -> Sequence[tuple[str, TrialStatus, str]]:
        """(trial, status, reason) of candidates that should leave the pack now; "waiting" for those that are to come back."""
        ...

    def ended(self, finished: Finished, seat: Seat, reason: str | None) -> None:
        """A candidate has left."""
        ...


Save = Callable[[Seat], str | None]


class Doctor(Protocol):
    """Watches candidates, says what is wrong with them, and whether that may end them."""

    def may_end(self, seat: Seat, status: EndStatus, reason: str | None) -> bool:
        """False where the user wants to be told only."""
        ...

    def examine(self, job: Job, seat: Seat, status: EndStatus, reason: str | None) -> None:
        """A candidate is about to leave; its last weights are still in place."""
        ...


@dataclass
class Driver:
    """Runs candidates of a source through a trainer.

    Attributes:
        slots: how many train at once.
        save: called with a completed candidate still in its slot, best weights restored; gives the adapter's path.
        expired: says that the time is up: living candidates are then ended with what they have.
        doctor: looks at each candidate before it leaves; None for no diagnosis.
        keeper: writes checkpoints between ticks; None for none.
    """

    trainer: PackTrainer
    recorder: Recorder
    slots: int
    save: Save
    expired: Callable[[], bool] = lambda: False
    doctor: Doctor | None = None
    keeper: Keeper | None = None
    finished: dict[str, Finished] = field(default_factory=dict[str, Finished])
    _jobs: dict[str, Job] = field(default_factory=dict[str, Job])

    def run(self, source: Source) -> None:
        """Until the source has nothing left and the pack is empty.

        Raises:
            KeyboardInterrupt: Ctrl-C; the tick was finished and a checkpoint written.
        """
        with listening() as stop:
            self._run(source, stop)

    def _run(self, source: Source, stop: Callable[[], bool]) -> None:
        while True:
            if not (self.finished and self.expired()):
                self._fill(source)
                if self.trainer.shelf and not self.trainer.seats:
                    # The last that the others waited for ended by itself.
                    self._heed(source)
                    self._fill(source)
            self._keep(now=stop() or not self.trainer.seats)
            if stop():
                raise KeyboardInterrupt
            if not self.trainer.seats:
                return
            for event in self.trainer.tick():
                self.recorder.send(event)
            for trial in self.trainer.diverged():
                self._advise_end(source, trial, "diverged", why_diverged(self.trainer.seats[trial]))
            self._score(source)
            for trial in self.trainer.finished():
                self._end(source, trial, "completed", None)
            if self.expired():
                self._end_all(source, "the time that was allowed is used up")

    def _fill(self, source: Source) -> None:
        while len(self.trainer.seats) < self.slots:
            job = source.ask()
            if job is None:
                return
            if job.candidate.id in self.trainer.shelf:
                self.recorder.going_on(self.trainer.go_on(job.candidate.id))
                continue
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
        self._heed(source)

    def _heed(self, source: Source) -> None:
        """Do what the source says of its candidates."""
        for trial, status, reason in source.verdicts():
            if status == "waiting" and trial in self.trainer.seats:
                self.recorder.waits(self.trainer.seats[trial], reason)
                self.trainer.pause(trial)
            elif trial in self.trainer.seats or trial in self.trainer.shelf:
                self._advise_end(source, trial, cast(EndStatus, status), reason)

    def _end_all(self, source: Source, reason: str) -> None:
        """End all that live; as many of the best as train at once are saved, whether they trained or waited."""
        scores = {trial: seat.best for trial, seat in self.trainer.seats.items()}
        for trial in self.trainer.shelf:
            best = self.trainer.shelf.look(trial)["best"]
            scores[trial] = best and score_of_plain(best)
        costs = {trial: math.inf if best is None else mean_cost(best) for trial, best in scores.items()}
        kept = sorted(costs, key=lambda trial: costs[trial])[: self.slots]
        for trial in costs:
            self._end(source, trial, "pruned", reason, keep=trial in kept)

    def _advise_end(self, source: Source, trial: str, status: EndStatus, reason: str | None) -> None:
        """End a candidate before its last step, unless the user asked only to be told."""
        if trial in self.trainer.shelf or self.doctor is None or self.doctor.may_end(self.trainer.seats[trial], status, reason):
            self._end(source, trial, status, reason)

    def _end(self, source: Source, trial: str, status: EndStatus, reason: str | None, *, keep: bool = False) -> None:
        """Let a candidate go; completed ones, and with `keep` any that was ever scored, are saved as they were at best."""
        seat = self.trainer.seats[trial] if trial in self.trainer.seats else self.trainer.go_on(trial)
        if self.doctor is not None:
            self.doctor.examine(self._jobs[trial], seat, status, reason)
        if seat.best_weights is not None:
            seat.adapter.restore(seat.best_weights)
        path = self.save(seat) if status == "completed" or (keep and seat.best is not None) else None
        self.trainer.leave(trial)
        finished = Finished(self._jobs.pop(trial), status, seat.best, path, seat.seconds)
        self.finished[trial] = replace(finished, best=bare(finished.best))
        if self.keeper is not None:
            self.keeper.urgent = True
        self.recorder.ended(seat, status, reason, path)
        source.ended(finished, seat, reason)

    # -- going on later ------------------------------------------------------------------------------------------

    def knows(self, trial: str) -> bool:
        """Whether a candidate has ended here or is training."""
        return trial in self.finished or trial in self._jobs

    def _keep(self, *, now: bool) -> None:
        if self.keeper is not None:
            (self.keeper.now if now else self.keeper.maybe)()

    def state_dict(self) -> dict[str, Any]:
        """Who ended how, and what those who train were asked for, as plain values; their seats are the trainer's."""
        finished = [
            {
                **job_to_plain(one.job), "status": one.status, "best": one.best and asdict(one.best), "adapter": one.adapter,
                "seconds": one.seconds,
            }
            for one in self.finished.values()
        ]  # fmt: skip
        return {"finished": finished, "jobs": [job_to_plain(job) for job in self._jobs.values()]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave, also after JSON."""
        for kept in state["finished"]:
            best = None if kept["best"] is None else score_of_plain(kept["best"])
            job = Job(**job_parts(kept))
            self.finished[job.candidate.id] = Finished(job, kept["status"], best, kept["adapter"], kept["seconds"])
        self._jobs = {kept["candidate"]["id"]: Job(**job_parts(kept)) for kept in state["jobs"]}


def why_diverged(seat: Seat) -> str:
    """The step, the kind and the place of a divergence, in one line."""
    kind = "loss or gradient was not finite" if seat.nonfinite else "the loss stays far above its first value"
    place = f"; first bad layer {seat.bad_layer}" if seat.bad_layer else ""
    return f"{kind} at step {seat.step}{place}"
