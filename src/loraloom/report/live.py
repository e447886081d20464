"""What a page that follows a run shows of it: figures as points that can be added to, rows by
themselves, and the forecast beside what there is so far."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from sys import intern
from typing import Any

from loraloom.records import Event, Trial
from loraloom.report.forecast import Forecast, forecasts
from loraloom.report.plots import (
    FEWEST_POINTS,
    MOST_POINTS,
    POINTS_IN_ALL,
    Curve,
    Curves,
    rounded,
    thinned,
)
from loraloom.report.table import Column, columns, row
from loraloom.report.words import duration, gib, metric_words, with_error
from loraloom.store.result import RunResult

TRAINING = "train_loss"
"""Id of the figure of training losses."""
FIRST = {"trial": 0, "status": 1, "metric": 2, "test": 3}
MOST_FINDINGS = 50
"""Of a run that goes on; its report has all."""


@dataclass(frozen=True)
class Point:
    """A point of a candidate's curve in a figure; what is not known is None."""

    figure: str
    trial: str
    step: int
    share: float | None
    epoch: float | None
    value: float | None
    error: float | None


def drawn_metrics(metric: str) -> list[str]:
    """What is drawn over training: the deciding metric, and the loss beside any other one, since
    overfitting shows there first."""
    split, _, measure = metric.partition("_")
    return [metric] if measure == "loss" else [metric, f"{split}_loss"]


@dataclass(frozen=True)
class LiveFigure:
    """A figure, and the points of each candidate in it: worked out one by one, since they are many."""

    about: Mapping[str, Any]
    curves: Mapping[str, Curve]
    most: int
    """Points of one curve."""

    def points(self) -> Iterator[tuple[str, dict[str, list[Any]]]]:
        """Each candidate with its curve, thinned as in the report."""
        for trial, curve in self.curves.items():
            yield trial, _thin(curve, self.most)


def live_figures(result: RunResult, curves: Curves) -> list[LiveFigure]:
    """Every figure of a run, the deciding metric first."""
    drawn = [
        _figure(
            metric,
            metric_words(metric).capitalize(),
            "Scored on rows that no candidate trains on; a bar is one standard error.",
            curves.measured.get(metric, {}),
            MOST_POINTS,
            result.baseline.get(metric, math.nan),
        )
        for metric in drawn_metrics(result.metric)
    ]
    most = max(FEWEST_POINTS, min(MOST_POINTS, POINTS_IN_ALL // max(1, len(curves.training))))
    title, caption = "Training loss", "It shows whether a run diverges, not which candidate is better."
    return [*drawn, _figure(TRAINING, title, caption, curves.training, most, math.nan)]


def _figure(
    key: str, title: str, caption: str, by_trial: Mapping[str, Curve], most: int, base: float
) -> LiveFigure:
    about = {"title": title, "caption": caption, "unit": metric_words(key), "base": rounded(base)}
    return LiveFigure({"id": key, **about}, by_trial, most)


def _thin(curve: Curve, most: int) -> dict[str, list[Any]]:
    points = thinned(curve.values, most)
    at = [index for index, _ in points]
    return {
        "step": [curve.steps[index] for index in at],
        "share": [rounded(curve.shares[index]) for index in at],
        "epoch": [rounded(curve.epochs[index]) for index in at],
        "value": [rounded(value) for _, value in points],
        "error": [rounded(curve.error(index)) for index in at],
    }


def points(event: Event, metric: str) -> Iterator[Point]:
    """What an event adds to the figures of a run that is judged by `metric`."""
    if event.trial is None or event.step is None:
        return
    data, step = event.data, event.step
    epoch = _number(data.get("epoch"))
    if event.kind == "step":
        planned = _number(data.get("planned_steps"))
        share = rounded(step / planned) if planned else None
        yield Point(TRAINING, event.trial, step, share, epoch, _number(data.get("loss")), None)
    elif event.kind == "evaluated":
        split = str(data.get("split", "validation"))
        for name in drawn_metrics(metric):
            key = name.removeprefix(f"{split}_")
            value = _number(data.get(key)) if key != name else None
            if value is not None:
                share, error = _number(data.get("progress")), _number(data.get(f"{key}_se"))
                yield Point(name, event.trial, step, share, epoch, value, error)


def live_columns(result: RunResult) -> list[Column]:
    """Columns of the table: how a candidate is doing comes before what it was made of."""
    return sorted(columns(result), key=lambda column: FIRST.get(column.key, len(FIRST)))


def live_row(result: RunResult, trial: Trial, shown: Sequence[Column]) -> dict[str, Any]:
    """A candidate in the table: texts, what each column sorts by, its place, and how far it is."""
    told = row(result, trial, shown)
    return {
        "trial": trial.id,
        "status": trial.status,
        "role": told.role,
        "mark": told.mark,
        "reason": told.reason,
        "rank": rank_of(result, trial),
        # Most cells say what those of a thousand other rows say: they share their words.
        "cells": [(intern(cell.text), intern(cell.order)) for cell in told.cells],
        "steps": trial.steps,
        "planned": trial.planned_steps,
    }


def rank_of(result: RunResult, trial: Trial) -> list[Any]:
    """What a page sorts by to have candidates best first: the order of `RunResult.ranked`, but those
    that still train stand before those that left early."""
    value = result.value(trial)
    signed = value if result.direction == "minimize" else -value
    places = {"completed": 0, "running": 1, "waiting": 1}
    return [
        int(trial.id != result.best),
        places.get(trial.status, 2),
        int(math.isnan(value)),
        rounded(0.0 if math.isnan(value) else signed),
        trial.id,
    ]


def so_far(result: RunResult, forecast: Event | None) -> list[dict[str, Any]]:
    """Each forecast beside what the run has come to, while it goes and when it has ended."""
    told = forecasts(result, [forecast] if forecast else [])
    return [_beside(result, one) for one in told]


def _beside(result: RunResult, told: Forecast) -> dict[str, Any]:
    measured = {
        "time": (result.seconds, duration(result.seconds)),
        "memory": (
            peak := max((trial.peak_bytes for trial in result.trials), default=0),
            gib(peak) if peak else "not measured yet",
        ),
    }
    amount, words = measured[told.name]
    ended = result.status == "completed"
    return {
        "name": told.name,
        "expected": told.expected,
        "between": told.between,
        "now": words,
        "verdict": told.verdict if ended else _going(amount, told),
        "share": rounded(min(1.0, amount / told.total)) if told.total else None,
    }


def _going(amount: float, told: Forecast) -> str:
    return "more than was expected" if amount > told.high else ""


def base_text(result: RunResult) -> str:
    """The bare base by the deciding metric, in words."""
    known = result.baseline
    return with_error(known.get(result.metric, math.nan), known.get(f"{result.metric}_se", math.nan))


def _number(value: Any) -> float | None:
    known = isinstance(value, (int, float)) and not isinstance(value, bool)
    return rounded(value) if known else None
