"""What happens in a run, written down as it happens: events to the folder, trials to
the result, both to whoever watches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from loraloom.pipeline.job import Job, Record, bare
from loraloom.pipeline.live_index import LiveIndex
from loraloom.pipeline.write_timer import WriteTimer
from loraloom.plan.initial_adapter import FOLDER
from loraloom.records import EndStatus, Event, Score, Trial
from loraloom.store.folder import RunFolder
from loraloom.store.result import RunResult
from loraloom.store.scores import add_score
from loraloom.train.orders import Ended, SeatView

Watch = Callable[[Event], None]


class Recorder:
    """The one place where events become records.

    Attributes:
        records: one of each candidate, in the order in which they began.
        index: keeps the run's row in the index of runs; None where nobody asks for one.
    """

    def __init__(
        self, folder: RunFolder, result: RunResult, watch: Watch, rows: Mapping[str, str] | None = None
    ) -> None:
        """`rows`: fingerprint of each split's rows, for the row costs that are kept;
        none are kept without."""
        self.folder = folder
        self.result = result
        self.watch = watch
        self.rows = rows or {}
        self.began = time.perf_counter()
        self.records: dict[str, Record] = {}
        self.index: LiveIndex | None = None
        self._timer = WriteTimer()

    @property
    def seconds(self) -> float:
        """How long the run has lasted, without the time in which it stood still. No
        clock that can be set goes in."""
        return time.perf_counter() - self.began

    def emit(self, kind: str, trial: str | None = None, step: int | None = None, **data: Any) -> None:
        self.send(Event(kind, trial, step, data=data))

    def send(self, event: Event) -> None:
        """Time an event, keep it, show it."""
        event = replace(event, at=round(self.seconds, 3))
        self.folder.append(event)
        self.watch(event)

    def note(self, text: str) -> None:
        """Something worth knowing: kept with the result and shown."""
        self.result.notes.append(text)
        self.emit("note", text=text)

    @property
    def count_ended(self) -> int:
        """How many candidates have ended."""
        return sum(record.place is not None for record in self.records.values())

    def finished(self) -> list[Record]:
        """Candidates that have ended, in the order in which they did."""
        ended = [record for record in self.records.values() if record.place is not None]
        return sorted(ended, key=lambda record: record.place or 0)

    def adapter_folder(self, trial: str) -> Path:
        """Where a candidate's adapter is saved."""
        return self.folder.trial_folder(trial) / "adapter"

    def started(self, job: Job, seat: SeatView, worker: str | None = None) -> None:
        """A candidate has joined the pack, of this worker where there are several."""
        params = job.candidate.params
        settings = job.settings
        trial = Trial(
            seat.id,
            "running",
            params,
            planned_steps=seat.planned_steps,
            settings=settings,
            trainable_parameters=seat.trainable_parameters,
            role=job.role,
            parent=job.parent,
            warm=job.candidate.start not in (None, FOLDER),
        )
        cloned: dict[str, Any] = {"parent": job.parent, "warm": trial.warm} if job.parent else {}
        self.records[seat.id] = Record(job, trial)
        self.emit(
            "trial_started",
            seat.id,
            params=params,
            planned_steps=seat.planned_steps,
            settings=settings,
            role=job.role,
            **cloned,
            **_of(worker),
        )

    def waits(self, seat: SeatView, reason: str) -> None:
        """A candidate leaves the pack for a while."""
        self._change(seat.id, status="waiting", reason=reason, steps=seat.step)
        self.emit("waiting", seat.id, seat.step, reason=reason)

    def going_on(self, seat: SeatView, worker: str | None = None) -> None:
        """A candidate that waited is back in the pack, of this worker where there are several."""
        self._change(seat.id, status="running", reason=None)
        self.emit("running", seat.id, seat.step, **_of(worker))

    def scored(self, trial: str, score: Score, step: int | None = None, **more: Any) -> None:
        """Metrics of a trial on a split, as SPLIT_METRIC."""
        self._change(trial, metrics={**self.records[trial].trial.metrics, **named(score)})
        self.emit(
            "test" if score.split == "test" else "evaluated",
            trial,
            step,
            split=score.split,
            **more,
            **score.metrics,
        )
        if step is None:
            self.keep_costs(trial, score)

    def keep_costs(self, trial: str, score: Score) -> None:
        """Row costs of a saved adapter, for comparisons in pairs."""
        if score.split in self.rows:
            add_score(self.folder.trial_folder(trial), score, self.rows[score.split])

    def ended(self, ended: Ended) -> None:
        """The last word on a candidate: what was seen of it, its best checkpoint's
        metrics, and what it cost."""
        seat = ended.view
        order = ended.order
        if ended.examined:
            self._change(seat.id, findings=ended.examined.findings)
            self.folder.write_signals(seat.id, ended.examined.signals)
            self.emit("signals", seat.id, seat.step, **ended.examined.signals)
        known = self.records[seat.id].trial
        adapter = None
        if order.save_to is not None:
            adapter = str(order.save_to.relative_to(self.folder.path))
            self.emit("saved", seat.id, seat.step, logits_difference=ended.logits_difference)
        metrics = {**known.metrics, **(named(ended.best) if ended.best else {})}
        if ended.examined and ended.examined.retained:
            metrics |= named(ended.examined.retained)
        if seat.smoothed_loss is not None:
            metrics["train_loss"] = seat.smoothed_loss
        if ended.examined and (change := ended.examined.signals.get("retain_change")):
            metrics["retain_change"], metrics["retain_change_se"] = change
        self._change(
            seat.id,
            status=order.status,
            reason=order.reason,
            metrics=metrics,
            seconds=round(seat.seconds, 3),
            tokens=seat.tokens,
            steps=seat.step,
            peak_bytes=seat.peak_bytes,
            adapter=adapter or known.adapter,
        )
        record = self.records[seat.id]
        record.best, record.place = bare(ended.best), self.count_ended
        if adapter and ended.best:
            self.keep_costs(seat.id, ended.best)
        self.emit(order.status, seat.id, seat.step, reason=order.reason)
        self._timer.urgent = True
        self.write(now=False)
        self.index_later()

    def given_up(self, trial: str, status: EndStatus, reason: str, steps: int) -> None:
        """A candidate has ended that no worker holds: what is known of it stays."""
        self._change(trial, status=status, reason=reason, steps=steps)
        self.records[trial].place = self.count_ended
        self.emit(status, trial, steps, reason=reason)
        self._timer.urgent = True
        self.index_later()

    def _change(self, trial: str, **fields: Any) -> None:
        record = self.records[trial]
        record.trial = replace(record.trial, **fields)

    def suspend(self, reason: str) -> None:
        """Candidates that were still training wait for the run to go on, for this reason."""
        for trial in [record.id for record in self.records.values() if record.trial.status == "running"]:
            self._change(trial, status="waiting", reason=reason)

    def restore(self, result: RunResult, seconds: float, records: dict[str, Record]) -> None:
        """Go on with a result as it stood after `seconds` of the run."""
        self.result, self.began, self.records = result, time.perf_counter() - seconds, records

    def gone_on(self, living: Iterable[str]) -> None:
        """Show whoever watches what it has missed: that the run is there, and who is training."""
        self.watch(
            Event(
                "run_started",
                at=self.seconds,
                data={"verb": self.result.verb, "metric": self.result.metric},
            )
        )
        for known in (self.records[trial].trial for trial in living):
            data = {"params": known.params, "planned_steps": known.planned_steps}
            self.watch(Event("trial_started", known.id, at=self.seconds, data=data))

    def gathered(self) -> RunResult:
        """The result as it stands now."""
        self.result.trials = [record.trial for record in self.records.values()]
        self.result.seconds = round(self.seconds, 3)
        return self.result

    def write(self, *, now: bool = True) -> None:
        """Bring run.json up to date; without `now` only as often as `WriteTimer` finds
        right: it grows with every candidate."""
        if now or self._timer.due():
            with self._timer.writing():
                self.folder.write_result(self.gathered())

    def index_later(self) -> None:
        """Have the index of runs say what is known now; takes no time."""
        if self.index is not None:
            self.index.update(self.gathered())

    def index_last(self) -> None:
        """Have the index say how the run ended, as it was written last."""
        if self.index is not None:
            self.index.finish(self.result)


def _of(worker: str | None) -> dict[str, Any]:
    return {"worker": worker} if worker else {}


def named(score: Score) -> dict[str, float]:
    """A score's metrics under their full names."""
    return {f"{score.split}_{key}": value for key, value in score.metrics.items()}
