"""What the search saw: settings and scores, the map of rate and rank, and quality against its price.

A colour is the name of a property of page.css ("--best"): page.js puts its value in, so
that dark mode and print follow.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from loraloom.config import names
from loraloom.records import Trial
from loraloom.report.plots import Figure, role, rounded
from loraloom.report.table import mark, setting
from loraloom.report.words import clipped, metric_words, number, with_error
from loraloom.search.front import pareto_front
from loraloom.store.result import RunResult

TONES = {
    "best": "--best",
    "default": "--default",
    "pruned": "--pruned",
    "diverged": "--bad",
    "failed": "--bad",
}
RATE, RANK = names.LEARNING_RATE, names.R
RATE_BINS = 6
"""Columns of the heat map when the rates were drawn rather than chosen."""
PRICES = {
    "trainable_parameters": ("trained parameters", ""),
    "peak_bytes": ("peak memory (bytes)", ""),
    "seconds": ("time (s)", ""),
}


def search_figures(result: RunResult) -> list[Figure]:
    """Settings and scores, the map of rate and rank, and quality against each price;
    what has nothing to show is left out."""
    known = [trial for trial in _one_a_setting(result) if math.isfinite(result.value(trial))]
    made = [parallel_coordinates(result, known), heat_map(result, known)]
    made += [front_figure(result, known, price) for price in PRICES]
    return [figure for figure in made if figure is not None]


def parallel_coordinates(result: RunResult, trials: Sequence[Trial]) -> Figure | None:
    """Each candidate as a line through its settings to its score; None when fewer than
    two settings were varied.

    Drawn with plain lines: plotly's own parallel coordinates build code at run time,
    which the page's policy forbids.
    """
    axes: list[_Axis] = []
    for key in dict.fromkeys(key for trial in trials for key in trial.params):
        if (axis := _axis(key, [setting(trial, key) for trial in trials])) is not None:
            axes.append(axis)
    scores = _score_axis(result, trials)
    if len(axes) < 2 or scores is None:
        return None
    axes.append(scores)

    def drawn_last(place: int) -> tuple[int, float]:
        """Later lines cover earlier ones: the plan's own setting and the best come
        last, before them the better ones."""
        trial = trials[place]
        return ("", "default", "best").index(mark(result, trial)), -_cost(result, trial)

    traces = [
        _line(result, trials[place], place, axes) for place in sorted(range(len(trials)), key=drawn_last)
    ]
    notes = [
        {
            "x": x,
            "y": y,
            "text": html.escape(text),
            "showarrow": False,
            "yanchor": anchor,
            "font": {"size": 10, "color": "--faint"},
        }
        for x, axis in enumerate(axes)
        for y, text, anchor in ((1.02, axis.top, "bottom"), (-0.02, axis.bottom, "top"))
    ]
    lines = [
        {"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "line": {"color": "--rule", "width": 1}}
        for x in range(len(axes))
    ]
    return {
        "id": "parallel",
        "group": "search",
        "title": "Settings and score",
        "caption": (
            "Each line is a candidate, from its settings to its score; better ends are at the top of the"
            " last axis."
        ),
        "width": 130 * len(axes),
        "traces": traces,
        "layout": {
            "xaxis": {
                "tickvals": list(range(len(axes))),
                "ticktext": [_heading(axis.name) for axis in axes],
                "range": [-0.25, len(axes) - 0.75],
                "showgrid": False,
                "side": "top",
                "showline": False,
                "ticks": "",
            },
            "yaxis": {"visible": False, "range": [-0.12, 1.12]},
            "shapes": lines,
            "annotations": notes,
        },
    }


def heat_map(result: RunResult, trials: Sequence[Trial]) -> Figure | None:
    """The best score of each rate and rank; None when either was not varied."""
    points = [
        (_positive(setting(trial, RATE)), _positive(setting(trial, RANK)), trial) for trial in trials
    ]
    points = [(rate, rank, trial) for rate, rank, trial in points if rate and rank]
    rates, ranks = sorted({rate for rate, _, _ in points}), sorted({rank for _, rank, _ in points})
    if len(rates) < 2 or len(ranks) < 2:
        return None
    column, names = _columns(rates)
    best: dict[tuple[int, int], Trial] = {}
    # The worst first: the best trial of a cell is the last one written to it.
    for rate, rank, trial in sorted(points, key=lambda point: _cost(result, point[2]), reverse=True):
        best[column(rate), ranks.index(rank)] = trial
    grid = [[best.get((x, y)) for x in range(len(names))] for y in range(len(ranks))]
    low, high = _shades([result.value(trial) for trial in best.values()], result.direction)
    return {
        "id": "heat",
        "group": "search",
        "title": "Rate and rank",
        "caption": f"The best {metric_words(result.metric)} of each pair; empty where no candidate was.",
        "width": 110 + 66 * len(names),
        "traces": [
            {
                "type": "heatmap",
                "x": names,
                "y": [number(int(rank)) for rank in ranks],
                "z": [
                    [rounded(result.value(trial)) if trial else None for trial in row] for row in grid
                ],
                "text": [
                    [with_error(result.value(trial)) if trial else "" for trial in row] for row in grid
                ],
                "texttemplate": "%{text}",
                "hovertext": [
                    [html.escape(_label(result, trial)) if trial else "" for trial in row]
                    for row in grid
                ],
                "hovertemplate": "%{hovertext}<extra></extra>",
                "colorscale": [[0, "--heat-low"], [1, "--heat-high"]],
                "reversescale": result.direction == "minimize",
                "zmin": low,
                "zmax": high,
                "showscale": False,
                "hoverongaps": False,
                "xgap": 3,
                "ygap": 3,
                "textfont": {"color": "--ink", "size": 12},
            }
        ],
        "layout": {
            "xaxis": {"title": {"text": "learning rate"}, "type": "category", "showgrid": False},
            "yaxis": {"title": {"text": "rank"}, "type": "category", "showgrid": False},
        },
    }


def front_figure(result: RunResult, trials: Sequence[Trial], price: str) -> Figure | None:
    """Quality against what it takes, with the candidates that nothing beats at both;
    None when all take the same."""
    points = {
        trial.id: (float(getattr(trial, price)), _cost(result, trial))
        for trial in trials
        if trial.status == "completed"
    }
    points = {name: point for name, point in points.items() if point[0] > 0}
    if len({taken for taken, _ in points.values()}) < 2:
        return None
    front = pareto_front(points)
    shown = [trial for trial in trials if trial.id in points]
    edge = [trial for name in front for trial in shown if trial.id == name]
    title = PRICES[price][0]
    return {
        "id": f"front_{price}",
        "group": "front",
        "title": metric_words(result.metric).capitalize(),
        "caption": (
            f"against {title.partition(' (')[0]}; the line joins those that nothing beats at both."
        ),
        "traces": [
            {
                "type": "scatter",
                "mode": "lines",
                "hoverinfo": "skip",
                "line": {"color": "--faint", "width": 1.2, "shape": "hv"},
                "x": [points[trial.id][0] for trial in edge],
                "y": [rounded(result.value(trial)) for trial in edge],
            },
            {
                "type": "scatter",
                "mode": "markers",
                "x": [points[trial.id][0] for trial in shown],
                "y": [rounded(result.value(trial)) for trial in shown],
                "error_y": {
                    "type": "data",
                    "array": [rounded(_error(result, trial)) or 0 for trial in shown],
                    "thickness": 1,
                    "width": 0,
                    "color": "--rule",
                },
                "text": [html.escape(_label(result, trial)) for trial in shown],
                "hovertemplate": "%{text}<extra></extra>",
                "marker": {
                    "color": [TONES.get(role(result, trial), "--other") for trial in shown],
                    "size": 9,
                },
            },
        ],
        "layout": {"xaxis": {"title": {"text": title}, "nticks": 5}, "yaxis": {"title": {"text": ""}}},
    }


@dataclass(frozen=True)
class _Axis:
    """A vertical axis: where each candidate crosses it (0 to 1), and what stands at its ends."""

    name: str
    places: list[float | None]
    texts: list[str]
    top: str
    bottom: str


def _axis(name: str, values: Sequence[object], *, upside_down: bool = False) -> _Axis | None:
    """None where all values are the same."""
    texts = [number(value) for value in values]
    if len(set(texts)) < 2:
        return None
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        numbers = [float(value) for value in values if isinstance(value, (int, float))]
        # Rates, ranks and batches are tried in factors: on a linear axis all but the
        # largest would lie together.
        is_wide = min(numbers) > 0 and max(numbers) / min(numbers) >= 4
        scaled = [math.log(one) for one in numbers] if is_wide else numbers
        low, high = min(scaled), max(scaled)
        places = [(one - low) / (high - low) for one in scaled]
        bottom = texts[scaled.index(low)]
        top = texts[scaled.index(high)]
        if upside_down:
            places = [1 - place for place in places]
            bottom, top = top, bottom
        return _Axis(name, [rounded(place) for place in places], texts, top, bottom)
    kinds = sorted(set(texts))
    step = 1 / (len(kinds) - 1)
    return _Axis(
        name,
        [rounded(kinds.index(text) * step) for text in texts],
        texts,
        clipped(kinds[-1]),
        clipped(kinds[0]),
    )


def _score_axis(result: RunResult, trials: Sequence[Trial]) -> _Axis | None:
    """The scores, better ones higher.

    Candidates that diverged stand at the worse end: on a scale that held their scores,
    all others would be one point.
    """
    whole = [result.value(trial) for trial in trials if trial.status not in ("diverged", "failed")]
    values = [result.value(trial) for trial in trials]
    if whole:
        low, high = min(whole), max(whole)
        values = [min(max(value, low), high) for value in values]
    axis = _axis(metric_words(result.metric), values, upside_down=result.direction == "minimize")
    return axis and replace(
        axis, texts=[with_error(result.value(trial), _error(result, trial)) for trial in trials]
    )


def _line(result: RunResult, trial: Trial, place: int, axes: Sequence[_Axis]) -> dict[str, Any]:
    """The line of the candidate at this place through all axes."""
    drawn_as = role(result, trial)
    label = "<br>".join(html.escape(f"{axis.name}: {axis.texts[place]}") for axis in axes)
    return {
        "type": "scatter",
        "mode": "lines",
        "x": list(range(len(axes))),
        "y": [axis.places[place] for axis in axes],
        "line": {
            "color": TONES.get(drawn_as, "--other"),
            "width": {"best": 3.2, "default": 2.4}.get(drawn_as, 1.3),
            "shape": "spline",
            "smoothing": 0.6,
        },
        "opacity": 1 if drawn_as in ("best", "default") else 0.6,
        "hovertemplate": f"<b>{html.escape(trial.id)}</b><br>{label}<extra></extra>",
        "meta": {"trial": trial.id},
    }


def _heading(name: str) -> str:
    return html.escape(name.rpartition(".")[2].replace("_", " "))


def _one_a_setting(result: RunResult) -> list[Trial]:
    """One trial of each setting: the finalists' further seeds would only draw the same line again."""
    ranked = sorted(result.ranked(), key=lambda trial: repr(sorted(trial.params.items())))
    marks = ("best", "default", "")
    return [
        min(group, key=lambda trial: marks.index(mark(result, trial)))
        for _, group in groupby(ranked, key=lambda trial: repr(sorted(trial.params.items())))
    ]


def _columns(rates: Sequence[float]) -> tuple[Callable[[float], int], list[str]]:
    """Which column a rate falls into, and the name of each: the rates themselves while they are few,
    else bins of equal width in the logarithm of the rate.
    """
    if len(rates) <= RATE_BINS + 2:
        return list(rates).index, [number(rate) for rate in rates]
    low = math.log(rates[0])
    step = math.log(rates[-1] / rates[0]) / RATE_BINS
    names = [
        f"{number(math.exp(low + i * step))} – {number(math.exp(low + (i + 1) * step))}"
        for i in range(RATE_BINS)
    ]
    return lambda rate: min(RATE_BINS - 1, int((math.log(rate) - low) / step)), names


def _shades(values: Sequence[float], direction: str) -> tuple[float, float]:
    """Ends of the colours: from the middle to the best, so that one diverged candidate
    does not bleach all others."""
    ordered = sorted(values, reverse=direction == "maximize")
    best, worst = ordered[0], ordered[(3 * len(ordered)) // 4 if len(ordered) > 3 else -1]
    low, high = sorted((best, worst))
    return low, high if high > low else low + 1e-9


def _cost(result: RunResult, trial: Trial) -> float:
    return result.value(trial) if result.direction == "minimize" else -result.value(trial)


def _error(result: RunResult, trial: Trial) -> float:
    return trial.metrics.get(f"{result.metric}_se", math.nan)


def _label(result: RunResult, trial: Trial) -> str:
    settings = ", ".join(
        f"{key.rpartition('.')[2]} {number(value)}" for key, value in trial.params.items()
    )
    return f"{trial.id}: {with_error(result.value(trial), _error(result, trial))}. {settings}"


def _positive(value: object) -> float:
    return (
        float(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
        else 0.0
    )
