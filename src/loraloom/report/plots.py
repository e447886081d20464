"""Curves out of events, and the figures that plotly.js draws from them. No colours
here: page.js takes them from page.css."""

from __future__ import annotations

import html
import math
from array import array
from collections.abc import Iterable, Mapping, MutableSequence, Sequence
from dataclasses import dataclass, field
from typing import Any

from loraloom.config import names
from loraloom.records import Event, Trial
from loraloom.report.table import mark, role, setting
from loraloom.report.words import metric_words, number, with_error
from loraloom.store.result import RunResult

MOST_POINTS = 120
FEWEST_POINTS = 40
"""Points of one training curve: enough for its shape; with more than 120 the noise of
single batches would hide it."""
POINTS_IN_ALL = 16_000
"""Of all training curves together: they have to stay under about half a megabyte of the page."""
END_SYMBOLS = {"pruned": "x", "diverged": "triangle-up", "failed": "triangle-up"}
SYMBOL_SIZES = {"star": 13, "diamond": 9, "x": 9, "triangle-up": 10, "circle": 5}

Figure = dict[str, Any]


@dataclass
class Curve:
    """One measure of one candidate. All lists have the same length, but for `errors`, which ends with
    the last that is known; `errors` and `epochs` hold NaN where unknown."""

    steps: MutableSequence[int] = field(default_factory=lambda: array("i"))
    shares: MutableSequence[float] = field(default_factory=lambda: array("d"))
    epochs: MutableSequence[float] = field(default_factory=lambda: array("d"))
    values: MutableSequence[float] = field(default_factory=lambda: array("d"))
    errors: MutableSequence[float] = field(default_factory=lambda: array("d"))
    # Arrays: a thousand candidates have a hundred thousand points, and a live page holds them all.

    def add(self, step: int, share: float, epoch: float, value: float, error: float = math.nan) -> None:
        self.steps.append(step)
        self.shares.append(share)
        self.epochs.append(epoch)
        self.values.append(value)
        if not math.isnan(error):
            self.errors.extend([math.nan] * (len(self.values) - 1 - len(self.errors)))
            self.errors.append(error)

    def error(self, index: int) -> float:
        """Standard error of a point; NaN where it is not known."""
        return self.errors[index] if index < len(self.errors) else math.nan


@dataclass
class Curves:
    """All curves of a run: `measured[split_metric][trial]` and the `training` loss of each trial."""

    measured: dict[str, dict[str, Curve]] = field(default_factory=dict[str, dict[str, Curve]])
    training: dict[str, Curve] = field(default_factory=dict[str, Curve])
    best_steps: dict[str, int] = field(default_factory=dict[str, int])
    """Step of each trial's best checkpoint."""


class CurveReader:
    """Events sorted into curves, one by one.

    Args:
        planned_steps: of each trial, to tell how far a training step is on its own way.
    """

    def __init__(self, planned_steps: Mapping[str, int]) -> None:
        self.curves = Curves()
        self._planned = dict(planned_steps)

    def take(self, event: Event) -> None:
        """One event more."""
        trial, step = event.trial, event.step or 0
        if trial is None:
            return
        if event.kind == "trial_started" and isinstance(event.data.get("planned_steps"), int):
            self._planned[trial] = event.data["planned_steps"]
        share = step / self._planned[trial] if self._planned.get(trial) else math.nan
        if event.kind == "step":
            curve = self.curves.training.setdefault(trial, Curve())
            curve.add(step, share, _float(event.data.get("epoch")), _float(event.data.get("loss")))
        elif event.kind == "evaluated":
            _add_scores(self.curves, event, share)
        elif event.kind == "best" and event.step is not None:
            self.curves.best_steps[trial] = event.step


def read_curves(events: Iterable[Event], planned_steps: Mapping[str, int]) -> Curves:
    """Sort events into curves, as `CurveReader` does."""
    reader = CurveReader(planned_steps)
    for event in events:
        reader.take(event)
    curves = reader.curves
    for trial, curve in curves.training.items():
        _fill_epochs(
            curve, [by_trial[trial] for by_trial in curves.measured.values() if trial in by_trial]
        )
    return curves


def figures(result: RunResult, curves: Curves) -> list[Figure]:
    """The curves of the page, each with `id`, `title`, `caption`, `traces` and
    `layout`; those without a point are left out.

    A trace carries its id, its role and its three possible x axes (`share`, `step`, `epoch`) in `meta`.
    """
    split, _, measure = result.metric.partition("_")
    # The loss is drawn beside any other metric: overfitting shows there first.
    wanted = [f"{split}_loss"] if measure == "loss" else [result.metric, f"{split}_loss"]
    drawn = [
        _measured_figure(result, metric, curves.measured.get(metric, {}), curves.best_steps)
        for metric in wanted
    ]
    drawn.append(_training_figure(result, curves.training))
    return [figure for figure in drawn if figure["traces"]]


def thinned(values: Sequence[float], most: int) -> list[tuple[int, float]]:
    """At most `most` points of `values` as (index, mean of the stretch that ends
    there): a fall stays a fall."""
    finite = [(index, value) for index, value in enumerate(values) if math.isfinite(value)]
    width = max(1, math.ceil(len(finite) / most))
    stretches = [finite[start : start + width] for start in range(0, len(finite), width)]
    return [(stretch[-1][0], sum(value for _, value in stretch) / len(stretch)) for stretch in stretches]


def _add_scores(curves: Curves, event: Event, share: float) -> None:
    data = event.data
    split = str(data.get("split", "validation"))
    progress = _float(data.get("progress", share))
    for name, value in data.items():
        if (
            name in ("split", "progress", "epoch", "step")
            or name.endswith("_se")
            or math.isnan(_float(value))
        ):
            continue
        curve = curves.measured.setdefault(f"{split}_{name}", {}).setdefault(str(event.trial), Curve())
        curve.add(
            event.step or 0,
            progress,
            _float(data.get("epoch")),
            _float(value),
            _float(data.get(f"{name}_se")),
        )


def _fill_epochs(training: Curve, measured: Iterable[Curve]) -> None:
    """Steps do not always tell their epoch, evaluations do; epochs pass evenly over the
    steps of one candidate."""
    rates = [
        curve.epochs[-1] / curve.steps[-1]
        for curve in measured
        if curve.steps[-1] > 0 and curve.epochs[-1] > 0
    ]
    if rates:
        known = zip(training.steps, training.epochs, strict=True)
        training.epochs = [step * rates[0] if math.isnan(epoch) else epoch for step, epoch in known]


def _measured_figure(
    result: RunResult, metric: str, by_trial: Mapping[str, Curve], best_steps: Mapping[str, int]
) -> Figure:
    base = result.baseline.get(metric, math.nan)
    limits = _limits(result, by_trial, base)
    traces: list[dict[str, Any]] = []
    for trial, curve in _in_drawing_order(result, by_trial):
        picked = [index for index, _ in thinned(curve.values, MOST_POINTS)]
        values = [curve.values[index] for index in picked]
        texts = [with_error(curve.values[index], curve.error(index)) for index in picked]
        symbols = _symbols(
            result, trial, [curve.steps[index] for index in picked], best_steps.get(trial.id)
        )
        traces.append(_trace(result, trial, curve, picked, _inside(values, limits), texts, symbols))
    return {
        "id": metric,
        "group": "curves",
        "title": metric_words(metric).capitalize(),
        "caption": "Each candidate against its own training, scored on rows that it does not train on.",
        "traces": traces,
        "layout": _layout(metric_words(metric), limits, base),
    }


def _training_figure(result: RunResult, by_trial: Mapping[str, Curve]) -> Figure:
    most = max(FEWEST_POINTS, min(MOST_POINTS, POINTS_IN_ALL // max(1, len(by_trial))))
    limits = _limits(result, by_trial, math.nan)
    traces: list[dict[str, Any]] = []
    for trial, curve in _in_drawing_order(result, by_trial):
        points = thinned(curve.values, most)
        values = [value for _, value in points]
        texts = [with_error(value) for value in values]
        symbols = _symbols(result, trial, [curve.steps[index] for index, _ in points], None)
        trace = _trace(
            result, trial, curve, [index for index, _ in points], _inside(values, limits), texts, symbols
        )
        traces.append({**trace, "mode": "lines"})
    return {
        "id": "train_loss",
        "group": "curves",
        "title": "Training loss",
        "caption": (
            "Means over stretches of steps: they show whether a run diverges, not which candidate is"
            " better."
        ),
        "traces": traces,
        "layout": _layout("train loss", limits, math.nan),
    }


def _inside(values: Sequence[float], limits: tuple[float, float] | None) -> list[float]:
    """A candidate that diverged runs along the edge, so that its end can be seen; its
    true values stand in the labels."""
    return [value if limits is None else min(max(value, limits[0]), limits[1]) for value in values]


def _in_drawing_order(result: RunResult, by_trial: Mapping[str, Curve]) -> list[tuple[Trial, Curve]]:
    """Worst first, then the plan's own setting, and the winner on top."""
    worst_first = list(reversed(result.ranked()))
    worst_first.sort(key=lambda trial: ("", "default", "best").index(mark(result, trial)))
    return [(trial, by_trial[trial.id]) for trial in worst_first if trial.id in by_trial]


def _symbols(result: RunResult, trial: Trial, steps: Sequence[int], best_step: int | None) -> list[str]:
    """A mark at each point: where the best checkpoint was taken, and how the candidate ended."""
    symbols = ["circle"] * len(steps)
    if steps and best_step is not None:
        nearest = min(range(len(steps)), key=lambda index: abs(steps[index] - best_step))
        symbols[nearest] = "star" if trial.id == result.best else "diamond"
    if steps and trial.status in END_SYMBOLS:
        symbols[-1] = END_SYMBOLS[trial.status]
    return symbols


def _trace(
    result: RunResult,
    trial: Trial,
    curve: Curve,
    picked: Sequence[int],
    values: Sequence[float],
    texts: Sequence[str],
    symbols: Sequence[str],
) -> dict[str, Any]:
    drawn_as = role(result, trial)
    used = [("r", names.R), ("alpha", names.LORA_ALPHA), ("rate", names.LEARNING_RATE)]
    known = [
        f"{word} {number(setting(trial, key))}" for word, key in used if setting(trial, key) is not None
    ]
    label = html.escape(" · ".join([trial.id, *known]))
    shares = [rounded(curve.shares[index]) for index in picked]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": shares,
        "y": [rounded(value) for value in values],
        "text": list(texts),
        "name": html.escape(trial.id),
        "hovertemplate": f"<b>{label}</b><br>%{{text}}<br>{trial.status}<extra></extra>",
        "marker": {"symbol": list(symbols), "size": [SYMBOL_SIZES[symbol] for symbol in symbols]},
        "meta": {
            "trial": trial.id,
            "role": drawn_as,
            "share": shares,
            "step": [curve.steps[index] for index in picked],
            "epoch": [rounded(curve.epochs[index]) for index in picked],
        },
    }


def _layout(y_title: str, limits: tuple[float, float] | None, base: float) -> dict[str, Any]:
    layout: dict[str, Any] = {"yaxis": {"title": {"text": y_title}}}
    if limits is None:
        return layout
    layout["yaxis"]["range"] = [rounded(limit) for limit in limits]
    if math.isnan(base):
        return layout
    low, high = limits
    note = {"xref": "paper", "x": 1, "xanchor": "right", "showarrow": False}
    if low <= base <= high:
        line = {"dash": "dot", "width": 1.5}
        layout["shapes"] = [
            {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": base, "y1": base, "line": line}
        ]
        layout["annotations"] = [{**note, "y": base, "yanchor": "bottom", "text": "bare base"}]
    else:
        side, arrow = ("top", "↑") if base > high else ("bottom", "↓")
        height = 1 if base > high else 0
        text = f"bare base {with_error(base)} {arrow}"
        layout["annotations"] = [{**note, "yref": "paper", "y": height, "yanchor": side, "text": text}]
    return layout


def _limits(result: RunResult, by_trial: Mapping[str, Curve], base: float) -> tuple[float, float] | None:
    """The part of the y axis that is worth seeing.

    It holds every candidate except those that diverged: one of them would flatten all others. The bare
    base is in it unless that would take more than half of the height; it is then named at the edge.
    """
    diverged = {trial.id for trial in result.trials if trial.status in ("diverged", "failed")}
    curves = [curve for trial, curve in by_trial.items() if trial not in diverged] or list(
        by_trial.values()
    )
    values = [value for curve in curves for value in curve.values if math.isfinite(value)]
    if not values:
        return None
    low, high = min(values), max(values)
    if not math.isnan(base) and max(high, base) - min(low, base) <= 2 * (high - low):
        low, high = min(low, base), max(high, base)
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 0.05
    return low - margin, high + margin


def _float(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan


def rounded(value: float) -> float | None:
    """Five digits: more than a screen shows, and a page of half the size. None where
    the value is not finite."""
    return float(f"{value:.5g}") if math.isfinite(value) else None
