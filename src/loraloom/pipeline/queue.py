"""Candidates of a run that are in no pack: who comes next, who waits, what was decided, and what is kept
of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from loraloom.pipeline.balance import Speed, relief
from loraloom.pipeline.job import Job
from loraloom.pipeline.run_log import RunLog
from loraloom.records import EndStatus, Score, TrialStatus
from loraloom.train.orders import Kept, Report, SeatView

LOST_LIMIT = 3
"""A candidate that has lost its worker so often, and came no further in between, may be the reason: it
has failed."""

Decision = tuple[str, TrialStatus, str]
"""(trial, status, reason) of a candidate that should leave its pack; "waiting" for one that is to come
back."""


class Source(Protocol):
    """Where candidates come from and who judges them."""

    def ask(self) -> Job | None:
        """The next candidate, or None when there is none now. One that waits is asked for again to go
        on."""
        ...

    def scored(self, seat: SeatView, score: Score) -> None:
        """One evaluation, as it happens."""
        ...

    def verdicts(self) -> Sequence[Decision]:
        """What was decided since the last time."""
        ...

    def ended(self, trial: str, status: EndStatus, best: Score | None) -> None:
        """A candidate has left; `best` is its best evaluation."""
        ...


class Queue:
    """What the packs of a run share.

    Attributes:
        source: of the candidates that are trained now.
        seats: candidates of every pack, by worker, as they were last reported.
        waiting: those who were told to wait.
        kept: of each candidate the last state that was kept; of those who wait, and
            with several workers of all others.
        told: by trial, the last step of which the source has a score.
        known: of candidates that were with a worker which was lost, the step up to
            which all has been written down.
        decided: what the source decided and no pack has done yet.
        speeds: what was seen of each worker.
        promised: of candidates that leave their pack for an idle worker, which one.
    """

    source: Source

    def __init__(self, log: RunLog) -> None:
        self.log, self.recorder = log, log.recorder
        self.seats: dict[str, Mapping[str, SeatView]] = {}
        self.waiting: dict[str, Kept] = {}
        self.kept: dict[str, Kept] = {}
        self.told: dict[str, int] = {}
        self.known: dict[str, int] = {}
        self.decided: list[Decision] = []
        self.speeds: dict[str, Speed] = {}
        self.promised: dict[str, str] = {}
        self.generation = 0
        self._losses = Counter[str]()
        # On their way: into a pack (with their job) or, from where they wait, to their end; by trial,
        # with the worker.
        self._moving: dict[str, tuple[str, Job | None]] = {}
        self._pausing: set[str] = set()
        self._called_back: dict[str, Job] = {}
        if log.apart:
            self._restore(log.apart)

    # -- who comes next
    # ------------------------------------------------------------------------------------------

    def next_job(self, worker: str) -> Job | None:
        """A candidate that may join a worker's pack; None when there is none now."""
        while job := self._held_for(worker) or self.source.ask():
            trial = job.candidate.id
            record = self.recorder.records.get(trial)
            if record and record.place is not None:
                continue  # it ended while it was held
            if trial in self._pausing:
                self._called_back[trial] = job
            elif self.is_elsewhere(trial):
                # The source calls it back before any pack has let it go: it just stays.
                self.forget_decisions(trial)
            else:
                return job
        return None

    def is_elsewhere(self, trial: str) -> bool:
        """Whether a candidate trains, is on its way, or will be handed out anyway."""
        held = any(trial == job.candidate.id for job in self.log.held)
        return held or trial in self._moving or any(trial in seats for seats in self.seats.values())

    def _held_for(self, worker: str) -> Job | None:
        """One that is to join before any other, and is not on its way to an idle worker."""
        for place in reversed(range(len(self.log.held))):
            trial = self.log.held[place].candidate.id
            taker = self.promised.get(trial, worker)
            if taker == worker or self.seats.get(taker):
                self.promised.pop(trial, None)
                return self.log.held.pop(place)
        return None

    def is_free(self, trial: str) -> bool:
        """Whether a candidate waits and nobody is about to do anything with it."""
        return trial in self.waiting and trial not in self._moving

    def moves(self, trial: str, worker: str, job: Job | None = None) -> None:
        """A worker was told to take a candidate in, with its job, or to end one that waits, without."""
        self.generation += 1
        self._moving[trial] = worker, job

    def moved(self, trial: str) -> None:
        """The worker has done so, or had no memory for it."""
        del self._moving[trial]

    # -- what was decided
    # ----------------------------------------------------------------------------------------

    def listen(self) -> None:
        """Hear what the source has decided."""
        records = self.recorder.records
        self.decided += [one for one in self.source.verdicts() if records[one[0]].place is None]

    def forget_decisions(self, trial: str) -> None:
        """A decision no longer holds."""
        self.decided = [one for one in self.decided if one[0] != trial]
        if self.promised.pop(trial, None) and trial not in self._pausing:
            self._called_back.pop(trial, None)

    def relieve(self, idle: str) -> None:
        """Let a worker that has nothing to do take a candidate over from the one that would be last,
        where the run ends earlier so."""
        trial = relief(
            idle, self.seats, self.speeds, {*self.promised, *(one[0] for one in self.decided)}
        )
        if trial is not None:
            self.promised[trial] = idle
            self._called_back[trial] = self.recorder.records[trial].job
            self.decided.append((trial, "waiting", f"it goes on with {idle}, which has nothing to do"))

    def pauses(self, trial: str) -> None:
        """A candidate was told to wait."""
        self._pausing.add(trial)

    def paused(self, trial: str, kept: Kept) -> None:
        """It has left its pack."""
        self._pausing.discard(trial)
        self.waiting[trial] = kept
        if trial in self._called_back:
            self.log.held.append(self._called_back.pop(trial))

    def ended(self, trial: str, status: EndStatus, best: Score | None) -> None:
        """A candidate has ended."""
        self.forget_decisions(trial)
        self.waiting.pop(trial, None)
        self.kept.pop(trial, None)
        self.source.ended(trial, status, best)

    def reported(self, worker: str, report: Report) -> None:
        """What became of a pack."""
        self.speeds.setdefault(worker, Speed()).saw(self.seats.get(worker, {}), report.seats)
        self.seats[worker] = report.seats
        for trial, kept in report.kept.items():
            if trial in self.kept and kept.step > self.kept[trial].step:
                self._losses.pop(trial, None)  # it comes further, however often it loses its worker
        self.kept.update(report.kept)
        self.log.files |= {kept.file for kept in report.kept.values()}

    # -- when a worker is lost
    # -----------------------------------------------------------------------------------

    def take_back(self, worker: str, reason: str) -> None:
        """What a lost worker had goes to others: from what was kept, or from the start."""
        self.promised = {trial: taker for trial, taker in self.promised.items() if taker != worker}
        self.speeds.pop(worker, None)
        for trial, (other, job) in list(self._moving.items()):
            if other == worker:
                del self._moving[trial]
                self.log.held += [job] if job else []
        for trial, seat in self.seats.pop(worker, {}).items():
            self._pausing.discard(trial)
            if self._called_back.pop(trial, None):
                self.forget_decisions(trial)
            self.known[trial] = max(seat.step, self.known.get(trial, 0))
            self._losses[trial] += 1
            if self._losses[trial] < LOST_LIMIT:
                self.recorder.waits(seat, f"its worker was lost ({reason})")
                self.log.held.append(self.recorder.records[trial].job)
            else:
                self.give_up(
                    trial, "failed", f"its worker was lost {LOST_LIMIT} times, at last: {reason}"
                )

    def give_up(self, trial: str, status: EndStatus, reason: str) -> None:
        """End a candidate that is with no worker."""
        self.recorder.given_up(trial, status, reason, self.known.get(trial, 0))
        self.ended(trial, status, None)

    def give_up_held(self, reason: str) -> None:
        """End the candidates that were with lost workers: nobody takes them in any more."""
        for job in self.log.held:
            trial = job.candidate.id
            if trial not in self.recorder.records and job.parent:
                self.recorder.note(f"{trial}, a clone of {job.parent}, never began: the time is used up")
            if trial in self.recorder.records and self.recorder.records[trial].place is None:
                self.give_up(trial, "pruned", reason)

    # -- going on later
    # ------------------------------------------------------------------------------------------

    def to_plain(self) -> dict[str, Any]:
        """All of it for a checkpoint, as if every worker had just been lost."""
        seated = [trial for seats in self.seats.values() for trial in seats]
        moving = [job for _, job in self._moving.values() if job]
        jobs = [*self.log.held, *moving, *(self.recorder.records[trial].job for trial in seated)]
        known = dict(self.known)
        for seats in self.seats.values():
            known |= {trial: max(seat.step, self.known.get(trial, 0)) for trial, seat in seats.items()}
        return {
            "held": [job.plain for job in {job.candidate.id: job for job in jobs}.values()],
            "waiting": list(self.waiting),
            "kept": {trial: asdict(kept) for trial, kept in self.kept.items()},
            "told": self.told,
            "known": known,
            "decided": [one for one in self.decided if one[0] not in self._called_back],
            "generation": self.generation,
        }

    def _restore(self, plain: Mapping[str, Any]) -> None:
        self.kept = {trial: Kept(**kept) for trial, kept in plain["kept"].items()}
        self.waiting = {trial: self.kept[trial] for trial in plain["waiting"]}
        self.told, self.known = dict(plain["told"]), dict(plain["known"])
        self.decided = [(trial, status, reason) for trial, status, reason in plain["decided"]]
        self.generation = plain["generation"]
