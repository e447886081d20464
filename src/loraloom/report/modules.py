"""What training did to each layer of the best adapter, drawn from the signals that
diagnosis left with it."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, cast

from loraloom.records import Trial
from loraloom.report.plots import Figure, rounded
from loraloom.report.words import clipped


def module_figures(best: Trial | None, signals: Mapping[str, Any]) -> list[Figure]:
    """What training did to each layer of the best adapter: its share of the update's
    energy, and its effective rank."""
    modules = _modules(signals)
    if best is None or not modules:
        return []
    names = [html.escape(clipped(name)) for name in modules]
    ranks = [values.get("r", math.nan) for values in modules.values()]
    energy = [values.get("energy", math.nan) for values in modules.values()]
    effective = [values.get("effective_rank", math.nan) for values in modules.values()]
    drawn = [
        (
            "energy",
            "Where the update went",
            "Share of the whole update's energy (squared Frobenius norm) in each layer.",
            energy,
            None,
        ),
        (
            "effective",
            "Effective rank",
            "Directions that each layer really uses, beside the rank that it was given.",
            effective,
            ranks,
        ),
    ]
    figures = [
        _bars(name, title, caption, names, values, given)
        for name, title, caption, values, given in drawn
        if any(math.isfinite(value) for value in values)
    ]
    return [*_group_figure(modules), *figures]


def _group_figure(modules: Mapping[str, Mapping[str, Any]]) -> list[Figure]:
    """Rank given and used in each part of the model; none where a run did not keep what lies where."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for values in modules.values():
        if values.get("group"):
            groups.setdefault(str(values["group"]), []).append(values)
    if len(groups) < 2:
        return []
    used, given = (
        [fmean(float(one.get(key, math.nan)) for one in group) for group in groups.values()]
        for key in ("effective_rank", "r")
    )
    return [
        _bars(
            "groups",
            "Where rank went",
            "Directions that the layers of each part use on average, beside their rank.",
            [f"{html.escape(name)} ({len(group)} layers)" for name, group in groups.items()],
            used,
            given,
        )
    ]


def _bars(
    name: str,
    title: str,
    caption: str,
    names: Sequence[str],
    values: Sequence[float],
    given: Sequence[float] | None,
) -> Figure:
    bars = {
        "type": "bar",
        "orientation": "h",
        "y": list(names),
        "hovertemplate": "%{y}: %{x:.3g}<extra></extra>",
    }
    traces: list[dict[str, Any]] = [
        {**bars, "x": [rounded(value) for value in values], "marker": {"color": "--best"}}
    ]
    if given:
        dots = {"color": "--faint", "symbol": "line-ns-open", "size": 11}
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "y": list(names),
                "x": [rounded(value) for value in given],
                "marker": dots,
                "hovertemplate": "%{y}: rank %{x}<extra></extra>",
            }
        )
    return {
        "id": f"modules_{name}",
        "group": "modules",
        "title": title,
        "caption": caption,
        "height": 70 + 15 * len(names),
        "traces": traces,
        "layout": {
            "xaxis": {"rangemode": "tozero"},
            "yaxis": {"autorange": "reversed", "showgrid": False, "tickfont": {"size": 10}},
            "bargap": 0.25,
        },
    }


def _modules(signals: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Per-layer numbers that diagnosis left with a trial; empty where there are none."""
    modules = signals.get("modules", {})
    if not isinstance(modules, Mapping):
        return {}
    found = cast("Mapping[Any, Any]", modules)
    return {str(name): _numbers(values) for name, values in found.items() if isinstance(values, Mapping)}


def _numbers(values: Mapping[Any, Any]) -> dict[str, Any]:
    """What of a layer's numbers are numbers, and the name of its group."""
    return {
        str(key): value
        for key, value in values.items()
        if isinstance(value, int | float) or key == "group"
    }
