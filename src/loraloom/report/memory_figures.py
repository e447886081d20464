"""Figures of a memory's page: recall by when a thing was learnt, and what each training did.

A colour is the name of a property of page.css ("--best"), as in `landscape`.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from loraloom.report.plots import Figure, rounded

Record = Mapping[str, Any]
"""A line of a memory's journal."""
HEIGHT = 300
"""Pixels."""
SHARES = {"range": [0, 1.04], "tickformat": ".0%", "fixedrange": True}
AS_WRITTEN, OTHER_WORDINGS, NOT_KNOWN = (
    ("as written", "verbatim", "best"),
    ("other wordings", "held_out", "default"),
    ("unseen names: not known", "not_known", "other"),
)
"""What a curve is called, its field, and its place in the key, which names its colour too."""


def memory_figures(document: Mapping[str, Any]) -> list[Figure]:
    """The figures that have something to show.

    Args:
        document: what `recall report --json` prints.
    """
    trained = [one for one in document["trainings"] if one.get("committed", True)]
    made = [
        _by_wake(document["by_wake"]),
        _after_trainings(trained),
        _cost(trained, document["before"]),
        _growth([one for one in trained if "bytes" in one]),
    ]
    return [figure for figure in made if figure is not None]


def name_of(record: Record) -> str:
    """A training in two words."""
    subject = f" {record['id']}" if record["op"] == "forget" else ""
    return f"{record['op']}{subject}{', rebuilt' if record.get('rebuilt') else ''}"


def result_of(record: Record) -> Record | None:
    """What everything that is kept answered after a training; None where nothing was trained."""
    if record["op"] == "forget":
        return record["proof"] and record["proof"]["others_after"]
    return record["after"] if record.get("committed", True) else record["before"]


def _by_wake(by_wake: Sequence[Record]) -> Figure | None:
    if not by_wake:
        return None
    labels = [f"wake {one['wake']}<br>{_lag(one['lag'])}" for one in by_wake]
    traces = [
        {
            "type": "bar",
            "x": labels,
            "y": [rounded(one[field]) for one in by_wake],
            "marker": {"color": colour},
            "name": name,
            "hovertemplate": f"%{{customdata}} items<br>{name} %{{y:.0%}}<extra></extra>",
            "customdata": [one["items"] for one in by_wake],
        }
        for name, field, colour in (
            ("as written", "verbatim", "--best"),
            ("other wordings", "other_wordings", "--default"),
        )
    ]
    return {
        "id": "by_wake",
        "group": "recall",
        "height": HEIGHT,
        "width": max(320, 90 * len(by_wake)),
        "title": "By session and lag",
        "caption": "What is answered today of what was learnt in each wake, and how many came after it.",
        "key": _key(AS_WRITTEN, OTHER_WORDINGS),
        "traces": traces,
        "layout": {
            "yaxis": SHARES,
            "xaxis": {"type": "category", "fixedrange": True},
            "barmode": "group",
            "bargap": max(0.45, 1 - 0.12 * len(by_wake)),
        },
    }


def _lag(lag: int) -> str:
    return "the last one" if not lag else f"lag {lag}"


def _after_trainings(trained: Sequence[Record]) -> Figure | None:
    known = [(record, result) for record in trained if (result := result_of(record)) is not None]
    if len(known) < 2:
        return None
    traces = [
        _curve([record for record, _ in known], [result[field] for _, result in known], name, role)
        for name, field, role in (AS_WRITTEN, OTHER_WORDINGS, NOT_KNOWN)
    ]
    return {
        "id": "after_trainings",
        "group": "recall",
        "height": HEIGHT,
        "title": "After each training",
        "caption": "Of all that was known then. Names that nobody wrote have to be answered with not"
        " knowing.",
        "key": _key(AS_WRITTEN, OTHER_WORDINGS, NOT_KNOWN),
        "traces": traces,
        "layout": {"yaxis": SHARES, "xaxis": _generations(known)},
    }


def _cost(trained: Sequence[Record], base: Record | None) -> Figure | None:
    known = [(record, result) for record in trained if (result := result_of(record)) is not None]
    if base is None or len(known) < 2:
        return None
    records = [record for record, _ in known]
    rises = [result["perplexity"] / base["perplexity"] - 1 for _, result in known]
    lost = [base["known"] - result["known"] for _, result in known]
    names = (("rise of perplexity", "", "bad"), ("own answers that it no longer gives", "", "other"))
    return {
        "id": "cost",
        "group": "cost",
        "height": HEIGHT,
        "title": "Cost to the base",
        "caption": "After each training, on texts and answers of the bare base's own that are never"
        " trained.",
        "key": _key(*names),
        "traces": [
            _curve(records, values, name, role)
            for values, (name, _, role) in zip((rises, lost), names, strict=True)
        ],
        "layout": {
            "yaxis": {"tickformat": ".0%", "rangemode": "tozero", "fixedrange": True},
            "xaxis": _generations(known),
        },
    }


def _growth(trained: Sequence[Record]) -> Figure | None:
    if not trained:
        return None
    colours = {"slow": "--best", "fast": "--default"}
    traces = [
        {
            "type": "bar",
            "x": [record["generation"] for record in trained],
            "y": [rounded(record["bytes"].get(part, 0) / 2**20) for record in trained],
            "marker": {"color": colour},
            "name": part,
            "hovertemplate": f"generation %{{x}}, {part}: %{{y:.2f}} MiB<extra></extra>",
        }
        for part, colour in colours.items()
    ]
    return {
        "id": "growth",
        "group": "cost",
        "height": HEIGHT,
        "title": "Size of the adapters",
        "caption": "After each training. A sleep puts fast and slow into one.",
        "key": _key(("slow", "", "best"), ("fast", "", "default")),
        "traces": traces,
        "layout": {
            "yaxis": {"title": {"text": "MiB"}, "rangemode": "tozero", "fixedrange": True},
            "xaxis": _generations([(record, record) for record in trained]),
            "barmode": "stack",
            "bargap": max(0.45, 1 - 0.12 * len(trained)),
        },
    }


def _curve(records: Sequence[Record], values: Sequence[float], name: str, role: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [record["generation"] for record in records],
        "y": [rounded(value) for value in values],
        "line": {"color": f"--{role}", "width": 2.2},
        "marker": {"color": f"--{role}", "size": 7},
        "cliponaxis": False,
        "name": name,
        "text": [html.escape(name_of(record)) for record in records],
        "hovertemplate": f"%{{text}}<br>{name} %{{y:.1%}}<extra></extra>",
    }


def _generations(known: Sequence[tuple[Record, Record]]) -> dict[str, Any]:
    numbers = [record["generation"] for record, _ in known]
    return {
        "title": {"text": "generation"},
        "tickformat": "d",
        "dtick": max(1, round((max(numbers) - min(numbers)) / 10)),
        "range": [min(numbers) - 0.5, max(numbers) + 0.5],
        "fixedrange": True,
    }


def _key(*curves: tuple[str, str, str]) -> list[tuple[str, str]]:
    """Names in a figure's key, each with the class that gives it its colour."""
    return [(role, name) for name, _, role in curves]
