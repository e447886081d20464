"""What happens in a run, written down as it happens: events to the folder, trials to the result, both to whoever watches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from loraloom.records import Event, Finding, Score, Trial, TrialStatus
from loraloom.store.folder import RunFolder
from loraloom.store.result import RunResult
from loraloom.store.scores import add_score
from loraloom.train.pack import Seat

Watch = Callable[[Event], None]


class Recorder:
    """The one place where events become records."""

    def __init__(self, folder: RunFolder, result: RunResult, watch: Watch, rows: Mapping[str, str] | None = None) -> None:
        """`rows`: fingerprint of each split's rows, for the row costs that are kept; none are kept without."""
        self.folder, self.result, self.watch, self.rows = folder, result, watch, rows or {}
        self.began = time.perf_counter()
        self.trials: dict[str, Trial] = {trial.id: trial for trial in result.trials}

    @property
    def seconds(self) -> float:
        """How long the run has lasted, without the time in which it stood still. No clock that can be set goes in."""
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

    def started(self, seat: Seat, settings: Mapping[str, Any], kind: str) -> None:
        candidate = seat.candidate
        self.trials[seat.id] = Trial(
            seat.id, "running", candidate.params, planned_steps=seat.planned_steps, settings=settings,
            trainable_parameters=seat.adapter.arena.numel,
        )  # fmt: skip
        self.emit(
            "trial_started", seat.id, params=candidate.params, planned_steps=seat.planned_steps, settings=settings, role=kind
        )

    def waits(self, seat: Seat, reason: str) -> None:
        """A candidate leaves the pack for a while."""
        self.trials[seat.id] = replace(self.trials[seat.id], status="waiting", reason=reason, steps=seat.step)
        self.emit("waiting", seat.id, seat.step, reason=reason)

    def going_on(self, seat: Seat) -> None:
        """A candidate that waited is back in the pack."""
        self.trials[seat.id] = replace(self.trials[seat.id], status="running", reason=None)
        self.emit("running", seat.id, seat.step)

    def scored(self, trial: str, score: Score, step: int | None = None, **more: Any) -> None:
        """Metrics of a trial on a split, as SPLIT_METRIC."""
        known = self.trials[trial]
        metrics = {**known.metrics, **named(score)}
        self.trials[trial] = replace(known, metrics=metrics)
        self.emit("test" if score.split == "test" else "evaluated", trial, step, split=score.split, **more, **score.metrics)
        if step is None:
            self.keep_costs(trial, score)

    def keep_costs(self, trial: str, score: Score) -> None:
        """Row costs of a saved adapter, for comparisons in pairs."""
        if score.split in self.rows:
            add_score(self.folder.trial_folder(trial), score, self.rows[score.split])

    def diagnosed(self, seat: Seat, findings: Sequence[Finding]) -> None:
        """What was seen of a candidate that is about to leave, and what that means."""
        summary = seat.signals.summary()
        self.trials[seat.id] = replace(self.trials[seat.id], findings=tuple(findings), signals=summary)
        self.emit("signals", seat.id, seat.step, **seat.signals.to_plain())

    def ended(self, seat: Seat, status: TrialStatus, reason: str | None = None, adapter: str | None = None) -> None:
        """The last word on a trial: its best checkpoint's metrics, and what it cost."""
        known = self.trials[seat.id]
        metrics = {**known.metrics, **(named(seat.best) if seat.best else {})}
        if seat.smoothed_loss is not None:
            metrics["train_loss"] = seat.smoothed_loss
        self.trials[seat.id] = replace(
            known, status=status, reason=reason, metrics=metrics, seconds=round(seat.seconds, 3), tokens=seat.tokens,
            steps=seat.step, peak_bytes=seat.peak_bytes, adapter=adapter or known.adapter,
        )  # fmt: skip
        if adapter and seat.best:
            self.keep_costs(seat.id, seat.best)
        self.emit(status, seat.id, seat.step, reason=reason)
        self.write()

    def suspend(self, reason: str) -> None:
        """Candidates that were still training wait for the run to go on, for this reason."""
        for trial in [trial for trial in self.trials.values() if trial.status == "running"]:
            self.trials[trial.id] = replace(trial, status="waiting", reason=reason)

    def restore(self, result: RunResult, seconds: float) -> None:
        """Go on with a result as it stood after `seconds` of the run."""
        self.result, self.began = result, time.perf_counter() - seconds
        self.trials = {trial.id: trial for trial in result.trials}

    def gone_on(self, living: Iterable[str]) -> None:
        """Show whoever watches what it has missed: that the run is there, and who is training."""
        self.watch(Event("run_started", at=self.seconds, data={"verb": self.result.verb, "metric": self.result.metric}))
        for known in (self.trials[trial] for trial in living):
            data = {"params": known.params, "planned_steps": known.planned_steps}
            self.watch(Event("trial_started", known.id, at=self.seconds, data=data))

    def gathered(self) -> RunResult:
        """The result as it stands now."""
        self.result.trials = list(self.trials.values())
        self.result.seconds = round(self.seconds, 3)
        return self.result

    def write(self) -> None:
        """Bring run.json up to date."""
        self.folder.write_result(self.gathered())


def named(score: Score) -> dict[str, float]:
    """A score's metrics under their full names."""
    return {f"{score.split}_{key}": value for key, value in score.metrics.items()}
