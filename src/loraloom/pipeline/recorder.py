"""What happens in a run, written down as it happens: events to the folder, trials to the result, both to whoever watches."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from loraloom.records import Event, Score, Trial, TrialStatus
from loraloom.store.folder import RunFolder
from loraloom.store.result import RunResult
from loraloom.train.pack import Seat

Watch = Callable[[Event], None]


class Recorder:
    """The one place where events become records."""

    def __init__(self, folder: RunFolder, result: RunResult, watch: Watch) -> None:
        self.folder, self.result, self.watch = folder, result, watch
        self.began = time.perf_counter()
        self.trials: dict[str, Trial] = {trial.id: trial for trial in result.trials}

    def emit(self, kind: str, trial: str | None = None, step: int | None = None, **data: Any) -> None:
        self.send(Event(kind, trial, step, data=data))

    def send(self, event: Event) -> None:
        """Time an event, keep it, show it."""
        event = replace(event, at=round(time.perf_counter() - self.began, 3))
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

    def scored(self, trial: str, score: Score, step: int | None = None, **more: Any) -> None:
        """Metrics of a trial on a split, as SPLIT_METRIC."""
        known = self.trials[trial]
        metrics = {**known.metrics, **named(score)}
        self.trials[trial] = replace(known, metrics=metrics)
        self.emit("test" if score.split == "test" else "evaluated", trial, step, split=score.split, **more, **score.metrics)

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
        self.emit(status, seat.id, seat.step, reason=reason)
        self.write()

    def abandon(self, reason: str) -> None:
        """Candidates that were still training have failed, for this reason."""
        for trial in [trial for trial in self.trials.values() if trial.status == "running"]:
            self.trials[trial.id] = replace(trial, status="failed", reason=reason)
            self.emit("failed", trial.id, reason=reason)

    def write(self) -> None:
        """Bring run.json up to date."""
        self.result.trials = list(self.trials.values())
        self.result.seconds = round(time.perf_counter() - self.began, 3)
        self.folder.write_result(self.result)


def named(score: Score) -> dict[str, float]:
    """A score's metrics under their full names."""
    return {f"{score.split}_{key}": value for key, value in score.metrics.items()}
