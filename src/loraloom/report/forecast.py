"""What was forecast, beside what came: memory and time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from loraloom.records import Event
from loraloom.report.words import duration, gib
from loraloom.store.result import RunResult

NO_PARTS = ("total", "low", "high", "one_candidate", "budget")
"""Amounts in a forecast that are not parts of its total."""


@dataclass(frozen=True)
class Part:
    name: str
    amount: str
    share: float
    """Of the forecast's total, 0 to 1."""


@dataclass(frozen=True)
class Forecast:
    """One forecast and its measurement, in words."""

    name: str
    expected: str
    between: str
    measured: str
    verdict: str
    parts: tuple[Part, ...]
    total: float
    high: float
    """In bytes or seconds: what was expected, and the most."""


def forecasts(result: RunResult, events: Iterable[Event]) -> list[Forecast]:
    """Memory and time as the run's `forecast` event has them; empty where there is none."""
    told = next((event.data for event in events if event.kind == "forecast"), {})
    measured = {
        "memory": (max((trial.peak_bytes for trial in result.trials), default=0), "bytes", gib),
        "time": (result.seconds if result.status == "completed" else 0, "seconds", duration),
    }
    return [
        _forecast(name, told[name], unit, amount, words)
        for name, (amount, unit, words) in measured.items()
        if isinstance(told.get(name), Mapping) and _number(told[name].get(f"total_{unit}")) > 0
    ]


def _forecast(
    name: str, told: Mapping[str, Any], unit: str, measured: float, words: Callable[[float], str]
) -> Forecast:
    amounts = {
        key.removesuffix(f"_{unit}"): _number(value)
        for key, value in told.items()
        if key.endswith(f"_{unit}")
    }
    total, low, high = (amounts.get(key, 0.0) for key in ("total", "low", "high"))
    parts = [
        Part(key, words(value), value / total)
        for key, value in amounts.items()
        if key not in NO_PARTS and value > 0
    ]
    if low <= measured <= high:
        where = "inside the range"
    else:
        where = "above the range" if measured > high else "below the range"
    return Forecast(
        name=name,
        expected=words(total),
        between=f"{words(low)} to {words(high)}",
        measured=words(measured) if measured > 0 else "not measured",
        verdict=f"{measured / total - 1:+.0%} against the forecast, {where}" if measured > 0 else "",
        parts=tuple(sorted(parts, key=lambda part: -part.share)),
        total=total,
        high=high,
    )


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else 0.0
