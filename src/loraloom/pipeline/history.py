"""Earlier runs of the same model and task: what they took, held against what was
forecast for them, and what they found."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, cast

from loraloom.errors import LoraloomError
from loraloom.facts.device import DeviceFacts
from loraloom.pipeline.past_searches import with_past_searches
from loraloom.pipeline.prepare import Prepared, required_model
from loraloom.plan.correction import Measurement, by_history
from loraloom.plan.planner import Plan
from loraloom.search.history import PastSearch
from loraloom.store.folder import RunFolder
from loraloom.store.result import RunResult

LATEST = 50
"""Runs that are looked into, the latest first: a folder may hold thousands."""


@dataclass(frozen=True)
class Earlier:
    """A run that is over, with the forecast that it began with (as `plan --json` has it
    under "forecast")."""

    result: RunResult
    forecast: Mapping[str, Any]


def with_history(prepared: Prepared, kept: Sequence[PastSearch] | None = None) -> Prepared:
    """The same with what earlier searches found, and with forecasts of memory and time as earlier runs
    in its output folder correct them, and a note on each.

    What `engine: peft` would take is left alone: no run here has measured it. `kept`
    and errors as in `with_past_searches`.
    """
    config = prepared.config
    read = tuple(finished_runs(prepared.config.output_dir))
    prepared = with_past_searches(prepared, (result for _, result in read), kept)
    if config.engine == "peft":
        return prepared
    runs = tuple(earlier_runs(read, required_model(config), prepared.task, prepared.facts.device))
    return replace(prepared, plan=corrected(prepared.plan, runs)) if runs else prepared


def corrected(plan: Plan, runs: Iterable[Earlier]) -> Plan:
    """`plan` with its forecasts scaled by what `runs` took."""
    forecast = dict(plan.forecast)
    notes = list(plan.notes)
    runs = tuple(runs)
    measures: Mapping[str, Callable[[Earlier], Measurement | None]] = {
        "memory": memory_of,
        "time": time_of,
    }
    for name, measure in measures.items():
        found = [made for run in runs if (made := measure(run)) is not None]
        better = by_history(plan.forecast[name], found)
        if better.note:
            forecast[name] = better.estimate
            notes.append(f"{name} is {better.note}")
    return replace(plan, forecast=forecast, notes=tuple(notes))


def finished_runs(output_dir: str | Path) -> Iterator[tuple[RunFolder, RunResult]]:
    """Runs under `output_dir` that are over, however they ended, the latest first; each has its folder's
    name. What cannot be read is passed over: no plan fails for it."""
    for folder in islice(_latest(Path(output_dir)), LATEST):
        with suppress(LoraloomError, OSError, ArithmeticError, RecursionError, ValueError):
            result = replace(folder.result(), name=folder.name)
            if result.status != "running":
                yield folder, result


def earlier_runs(
    finished: Iterable[tuple[RunFolder, RunResult]], model: str, task: str, device: DeviceFacts
) -> Iterator[Earlier]:
    """Of runs that are over, those with this model, task and device that kept their
    forecast, in their order."""
    for folder, result in finished:
        if (result.model, result.task) != (model, task) or _device(result) != device.name:
            continue
        with suppress(LoraloomError, OSError):
            told = next((event.data for event in folder.events() if event.kind == "forecast"), None)
            if told is not None:
                yield Earlier(result, told)


def memory_of(run: Earlier) -> Measurement | None:
    """Peak bytes of the whole run. Pruning frees places for others, so the peak stands
    whoever was pruned."""
    peak = max((trial.peak_bytes for trial in run.result.trials), default=0)
    forecast = _amounts(run, "memory")
    foretold = forecast.get("one_candidate_bytes" if run.result.verb == "train" else "total_bytes", 0)
    return Measurement(run.result.name, foretold, float(peak)) if peak > 0 and foretold > 0 else None


def time_of(run: Earlier) -> Measurement | None:
    """Seconds that the run would have taken with nobody pruned, by what a trained token took.

    The forecast is for candidates that all go to their end with the plan's own setting, so its tokens
    are those of the trial with this setting, times the candidates. Only the seconds in training are held
    against it.
    """
    default = run.result.trial(run.result.default)
    forecast = _amounts(run, "time")
    training = forecast.get("training_seconds", 0) + forecast.get("layers_seconds", 0)
    seconds = sum(trial.seconds for trial in run.result.trials)
    tokens = sum(trial.tokens for trial in run.result.trials)
    if _share_at_start(run) < 1:
        # begun while others had their part of the cores: its seconds say nothing of an idle machine
        return None
    if (
        default is None
        or not default.steps
        or training <= 0
        or min(seconds, tokens, default.tokens) <= 0
    ):
        return None
    trainings = forecast.get("trainings", forecast.get("candidates", 1))
    unpruned = default.tokens / default.steps * default.planned_steps * trainings
    factor = seconds / tokens / (training / unpruned)
    startup = forecast.get("startup_seconds", 0)
    return Measurement(
        run.result.name,
        forecast["total_seconds"],
        startup + (forecast["total_seconds"] - startup) * factor,
    )


def _share_at_start(run: Earlier) -> float:
    """Of the cores, what was left to the run when it began; 1 where that was not noted."""
    time = run.forecast.get("time")
    now = cast("Mapping[str, Any]", time).get("now") if isinstance(time, Mapping) else None
    share = cast("Mapping[str, Any]", now).get("cores_share") if isinstance(now, Mapping) else None
    return float(share) if isinstance(share, int | float) and share > 0 else 1.0


def _amounts(run: Earlier, name: str) -> dict[str, float]:
    """The finite numbers of one forecast."""
    told = run.forecast.get(name)
    if not isinstance(told, Mapping):
        return {}
    amounts = cast("Mapping[str, Any]", told).items()
    return {
        key: float(value)
        for key, value in amounts
        if isinstance(value, (int, float)) and math.isfinite(value)
    }


def _device(result: RunResult) -> str | None:
    device = result.environment.get("device")
    return cast("Mapping[str, Any]", device).get("name") if isinstance(device, Mapping) else None


def _latest(root: Path) -> Iterator[RunFolder]:
    """Run folders, the one that was written to last first."""
    try:
        folders = [RunFolder(path) for path in root.iterdir() if path.is_dir()]
    except OSError:
        return
    dated = [(_written(folder.result_path), folder) for folder in folders]
    yield from (folder for at, folder in sorted(dated, key=lambda one: one[0], reverse=True) if at > 0)


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
