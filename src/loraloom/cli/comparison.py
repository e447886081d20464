"""What `loraloom compare` shows to people."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.text import Text

from loraloom.cli.screen import rows_left, say, table_width
from loraloom.report.fit import Shown, fitted
from loraloom.report.words import MISSING, count, duration, gib, metric_words, number, with_error

if TYPE_CHECKING:
    from loraloom.pipeline.compare import Comparison, Gain, Line

SHORT = {"trainable_parameters": "P", "peak_bytes": "M", "seconds": "T"}
BAR = 24
"""Characters of the longest bar of importance."""
OTHER_LINES = 18
"""Lines beside the candidates: heading, what the marks mean, verdict, what mattered."""


def show_comparison(found: Comparison, console: Console, *, everything: bool = False) -> None:
    """The table of candidates, the verdict, and which settings mattered.

    Args:
        everything: all columns and all candidates, however large the table.
    """
    judged = len(found.importance.shares) if not found.importance.note else 0
    rows = rows_left(console, OTHER_LINES + judged, everything=everything)
    lines = [
        line
        for place, line in enumerate(found.lines)
        if rows is None or place < rows or line.name in (found.keep, found.reference)
    ]
    console.print(_table(found, lines, table_width(console, everything=everything)), crop=False)
    for sentence in (found.verdict, *found.notes):
        say(console, sentence)
    console.print()
    if found.importance.note:
        say(console, f"what mattered: {found.importance.note}")
        return
    say(console, "what mattered (share of what sets good candidates apart)")
    longest = max(map(len, found.importance.shares))
    for key, share in found.importance.shares.items():
        console.print(
            Text(f"  {key.ljust(longest)}  {share:5.0%}  {'█' * round(BAR * share)}"), soft_wrap=True
        )


def _table(found: Comparison, lines: Sequence[Line], width: int | None) -> Group:
    direction = "lower" if found.direction == "minimize" else "higher"
    captions = [
        f"± one standard error, {direction} is better; gain over {found.reference}, ~ may be noise",
        "★ keep   ◆ reference",
    ]
    if len(lines) < len(found.lines):
        captions.append(f"{len(found.lines) - len(lines)} more candidates (--all shows them)")
    styles = ["bold" if line.name == found.keep else "" for line in lines]
    return fitted(_columns(found, lines), width, styles=styles, captions=captions)


def _columns(found: Comparison, lines: Sequence[Line]) -> Iterator[Shown]:
    """What is shown of each candidate, with the rank of each column."""

    def shown(
        heading: str, cell: Callable[[Line], str], rank: int, *, number: bool = True, note: str = ""
    ) -> Shown:
        return Shown(heading, [Text(cell(line)) for line in lines], rank, number, note)

    yield shown("  candidate", lambda line: _mark(found, line) + line.name, 0, number=False)
    varied = _varied(found)
    for key in varied:
        rank = (
            3 if key in sorted(varied, key=lambda key: -found.importance.shares.get(key, 0.0))[:2] else 6
        )
        is_number = all(isinstance(line.params.get(key, 0), int | float) for line in lines)
        yield shown(
            _heading(key), lambda line, key=key: number(line.params.get(key)), rank, number=is_number
        )
    yield shown("seeds", lambda line: str(len(line.trials)), 7)
    for place, split in enumerate(found.splits):
        yield shown(
            f"{split}\n{metric_words(found.metric)}",
            lambda line, split=split: _value(line, split),
            min(place, 1) * 2,
        )
    yield shown("gain", lambda line: _gain(line.gain), 1)
    yield shown("95% interval", lambda line: _interval(line.gain), 4)
    yield shown("time", lambda line: duration(line.seconds), 5)
    yield shown("trained", lambda line: count(line.trainable_parameters), 8)
    yield shown("memory", lambda line: gib(line.peak_bytes), 9)
    front = "front: nothing is better that takes no more parameters (P), memory (M), time (T)"
    yield shown(
        "front", lambda line: " ".join(SHORT[price] for price in line.front) or MISSING, 10, note=front
    )


def _varied(found: Comparison) -> list[str]:
    """Searched settings that are not the same for all, in their order."""
    keys = dict.fromkeys(key for line in found.lines for key in line.params)
    return [key for key in keys if len({number(line.params.get(key)) for line in found.lines}) > 1]


def _heading(key: str) -> str:
    first, _, last = key.rpartition(".")[2].replace("_", " ").rpartition(" ")
    return f"{first}\n{last}" if first else last


def _mark(found: Comparison, line: Line) -> str:
    if line.name == found.keep:
        return "★ "
    return "◆ " if line.name == found.reference else "  "


def _value(line: Line, split: str) -> str:
    return with_error(*line.values[split]) if split in line.values else MISSING


def _gain(gain: Gain | None) -> str:
    if gain is None:
        return MISSING
    return f"{gain.mean:+.3g}{'  ' if gain.certain else ' ~'}"


def _interval(gain: Gain | None) -> str:
    return MISSING if gain is None else f"{gain.low:+.3g} to {gain.high:+.3g}"
