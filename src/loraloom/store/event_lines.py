"""Events out of the lines of events.jsonl. A line that a crash left torn, or that holds no event, is
passed over."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from loraloom.records import Event

_EVENT = (str, str | None, int | None, int | float, dict)
"""Of which kind the fields of an event are."""


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)
"""NaN is no JSON: what is not a number is written as null."""


def events_of_lines(lines: Sequence[bytes]) -> Iterator[Event]:
    """The events of lines of events.jsonl: of many at once in half the time, as their keys are one
    another's. A line that a crash left torn is passed over."""
    try:
        found: list[Any] = _DECODER.decode((b"[" + b",".join(lines) + b"]").decode())
    except (ValueError, RecursionError):
        yield from filter(None, map(event_of_line, lines))
    else:
        yield from filter(None, map(_event_of_plain, found))


def event_of_line(line: bytes) -> Event | None:
    """The event of a line of events.jsonl; None where a crash left it torn."""
    try:
        return _event_of_plain(_DECODER.decode(line.decode()))
    except (ValueError, RecursionError):
        return None


def _event_of_plain(data: Any) -> Event | None:
    try:
        parts: tuple[Any, ...] = (
            data["kind"],
            data.get("trial"),
            data.get("step"),
            data.get("at") or 0.0,
            data["data"],
        )
    except (TypeError, KeyError, AttributeError):
        return None
    return Event(*parts) if all(map(isinstance, parts, _EVENT)) else None
