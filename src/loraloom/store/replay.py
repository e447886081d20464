"""A run's result out of its events alone: what is left of a run that was killed before
it could write run.json."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from loraloom.records import Event, Trial, TrialStatus
from loraloom.store.result import RunResult

STATES: Mapping[str, TrialStatus] = {
    "completed": "completed",
    "pruned": "pruned",
    "diverged": "diverged",
    "failed": "failed",
    "waiting": "waiting",
    "running": "running",
}
OF_RUN = (
    "verb",
    "model",
    "task",
    "started_at",
    "metric",
    "direction",
    "base_parameters",
    "base_quantization",
    "base_fingerprint",
    "default",
    "id",
    "host",
)
"""What a run says of itself as it begins."""
NOT_METRICS = frozenset({"split", "progress", "epoch", "metric", "step"})


class Replay:
    """Events folded into a result, one by one.

    A trial that never ended keeps the status "running" and its last scores. The run is "interrupted"
    unless a `run_finished` event says otherwise. What no event tells (environment, findings, tokens)
    stays empty.
    """

    def __init__(self, name: str) -> None:
        self._result = RunResult(
            name=name, verb="", status="interrupted", model="", task="", started_at=""
        )
        self._trials: dict[str, Trial] = {}
        self._began: dict[str, float] = {}
        self._stepped: dict[str, Event] = {}
        """The last step of a trial that is not yet in `_trials`: most events are steps, and the last one
        tells all that those before it did."""

    def take(self, event: Event) -> None:
        """One event more."""
        result, trials = self._result, self._trials
        result.seconds = max(result.seconds, event.at)
        if event.trial is None:
            _take_run(result, event)
            return
        if event.kind == "command":  # it names whom somebody asked about, even where there is nobody
            return
        if event.kind == "best":
            result.best = event.trial
        if event.kind == "step" and event.trial in trials:
            self._stepped[event.trial] = event
            return
        before = self.trial(event.trial) or Trial(id=event.trial, status="waiting", params={})
        trials[event.trial] = self._taken(before, event.trial, event)

    def trial(self, trial_id: str) -> Trial | None:
        """What is known of a candidate so far."""
        step = self._stepped.pop(trial_id, None)
        if step is not None:
            self._trials[trial_id] = self._taken(self._trials[trial_id], trial_id, step)
        return self._trials.get(trial_id)

    def _taken(self, before: Trial, trial_id: str, event: Event) -> Trial:
        seconds = event.at - self._began.setdefault(trial_id, event.at)
        return _take_trial(before, event, seconds)

    def result(self) -> RunResult:
        """What all events so far come to; another call of `take` changes it."""
        for trial in list(self._stepped):
            self.trial(trial)
        self._result.trials = list(self._trials.values())
        return self._result


def replay(name: str, events: Iterable[Event]) -> RunResult:
    """Fold `events` into a result, as `Replay` does."""
    fold = Replay(name)
    for event in events:
        fold.take(event)
    return fold.result()


def _take_run(result: RunResult, event: Event) -> None:
    if event.kind == "run_started":
        for key in OF_RUN:
            if event.data.get(key) is not None:
                setattr(result, key, event.data[key])
    elif event.kind == "evaluated":
        result.baseline = {**result.baseline, **_scores(event)}
    elif event.kind == "run_finished":
        result.status = event.data.get("status", "completed")
        result.reason = event.data.get("reason")


def _take_trial(trial: Trial, event: Event, seconds: float) -> Trial:
    data = event.data
    step = trial.steps if event.step is None else max(trial.steps, event.step)
    if event.kind == "trial_started":
        planned = data.get("planned_steps") or 0
        params, settings = _interned(data.get("params", {})), _interned(data.get("settings", {}))
        trial = replace(trial, status="running", params=params, settings=settings)
        return replace(trial, planned_steps=planned, seconds=seconds)
    if event.kind in ("evaluated", "test"):
        metrics = {**trial.metrics, **_scores(event)}
        return replace(trial, steps=step, metrics=metrics, seconds=seconds)
    if event.kind in STATES:
        status, reason = STATES[event.kind], data.get("reason")
        return replace(trial, steps=step, status=status, reason=reason, seconds=seconds)
    return replace(trial, steps=step, seconds=seconds)


def _interned(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The same with names that all candidates share, which each line had anew."""
    return {sys.intern(str(key)): value for key, value in settings.items()}


def _scores(event: Event) -> dict[str, float]:
    split = str(event.data.get("split", "test" if event.kind == "test" else "validation"))
    return {
        f"{split}_{key}": float(value)
        for key, value in event.data.items()
        if key not in NOT_METRICS and isinstance(value, (int, float)) and not isinstance(value, bool)
    }
