"""What `loraloom compare` shows to people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from loraloom.report.words import MISSING, count, duration, gib, metric_words, number, with_error

if TYPE_CHECKING:
    from loraloom.pipeline.compare import Comparison, Gain, Line

SHORT = {"trainable_parameters": "P", "peak_bytes": "M", "seconds": "T"}
BAR = 24
"""Characters of the longest bar of importance."""


def show_comparison(found: Comparison, console: Console) -> None:
    """The table of entrants, the verdict, and what the quality hung on."""
    console.print(_table(found))
    for line in (found.verdict, *found.notes):
        console.print(Text(line), soft_wrap=True)
    console.print()
    if found.importance.note:
        console.print(Text(f"what mattered: {found.importance.note}"), soft_wrap=True)
        return
    console.print(Text("what mattered (share of what sets good candidates apart)"))
    longest = max(map(len, found.importance.shares))
    for key, share in found.importance.shares.items():
        console.print(Text(f"  {key.ljust(longest)}  {share:5.0%}  {'█' * round(BAR * share)}"), soft_wrap=True)


def _table(found: Comparison) -> Table:
    direction = "lower" if found.direction == "minimize" else "higher"
    caption = (
        f"± one standard error, {direction} is better; gain over {found.reference} with its 95% interval, ~ may be noise\n"
        "★ keep   ◆ reference   front: nothing is better that takes no more parameters (P), memory (M), time (T)"
    )
    table = Table(box=box.SIMPLE_HEAD, caption=Text(caption, style="dim"), caption_justify="left", pad_edge=False, padding=(0, 1))
    table.add_column("\n  candidate", no_wrap=True)
    keys = _varied(found)
    for key in keys:
        table.add_column(_heading(key.rpartition(".")[2]), justify="right", overflow="fold", max_width=24)
    table.add_column("\nseeds", justify="right")
    for split in found.splits:
        table.add_column(f"{split}\n{metric_words(found.metric)}", justify="right", no_wrap=True)
    for heading in ("gain", "trained", "memory", "time", "front"):
        table.add_column(f"\n{heading}", justify="right", no_wrap=True)
    for line in found.lines:
        table.add_row(*(Text(cell) for cell in _cells(found, line, keys)), style="bold" if line.name == found.keep else "")
    return table


def _varied(found: Comparison) -> list[str]:
    """Searched settings that are not the same for all, in their order."""
    keys = dict.fromkeys(key for line in found.lines for key in line.params)
    return [key for key in keys if len({number(line.params.get(key)) for line in found.lines}) > 1]


def _heading(name: str) -> str:
    first, _, last = name.replace("_", " ").rpartition(" ")
    return f"{first}\n{last}"


def _cells(found: Comparison, line: Line, keys: Sequence[str]) -> list[str]:
    mark = "★ " if line.name == found.keep else "◆ " if line.name == found.reference else "  "
    return [
        mark + line.name, *(number(line.params.get(key)) for key in keys), str(len(line.trials)),
        *(with_error(*line.values[split]) if split in line.values else MISSING for split in found.splits),
        _gain(line.gain) if line.name != found.reference else "reference",
        count(line.trainable_parameters), gib(line.peak_bytes), duration(line.seconds),
        " ".join(SHORT[price] for price in line.front) or MISSING,
    ]  # fmt: skip


def _gain(gain: Gain | None) -> str:
    if gain is None:
        return MISSING
    return f"{gain.mean:+.3g} ({gain.low:+.3g} to {gain.high:+.3g}){'' if gain.certain else ' ~'}"
