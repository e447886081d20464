"""What is learnt: rows of training data as the model sees them, short enough to stay in sight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import itemgetter

from rich.console import Console
from rich.text import Text

from loraloom.cli.screen import is_bounded

Row = Sequence[tuple[str, bool]]
"""A row in pieces: the text, and whether it is learnt."""

WHOLE = 360
"""Characters of a piece of training data that are shown where there is room; of a
longer one its start and its end."""
LEAST = 60
SCREEN = 38
"""Lines that a command aims to keep to, the rows included: a screen of 40 has room for
the command and the next prompt too."""
FEWEST_LINES = 10
"""The rows get at least this many lines, however many stand above them."""


def rows_words(rows: Mapping[str, int]) -> str:
    """ "rows: 1,261 train, 203 validation, 202 confirm (kept for the race), 405 test"."""
    kept = " (kept for the race)"
    return "rows: " + ", ".join(
        f"{count:,} {name}{kept if name == 'confirm' else ''}" for name, count in rows.items()
    )


def show_rows(console: Console, rows: Sequence[Row], *, said: int = 0, everything: bool = False) -> None:
    """Print rows with what is learnt of them, in the lines that a screen has left.

    Args:
        said: lines that stand above them.
        everything: cut pieces only where they are very long.
    """
    if everything or not rows or not is_bounded(console):
        for row in rows:
            console.print(supervised(row), soft_wrap=True)
        return
    room = max(FEWEST_LINES, SCREEN - said)
    # One row whole tells more than two with their middles left out.
    while len(rows) > 1 and any(len(_wrapped(console, row, LEAST)) > room // len(rows) for row in rows):
        rows = rows[:-1]
    lines = room // len(rows)
    for row in rows:
        for line in _in_lines(console, row, lines):
            console.print(line, soft_wrap=True)


def supervised(row: Row, longest: int = WHOLE) -> Text:
    """A row as the model sees it: what is learnt stands between « and », what is only read is dim."""
    text = Text()
    for learnt, run in groupby(row, key=itemgetter(1)):
        pieces = _clipped("".join(piece for piece, _ in run), longest)
        text.append(f"«{pieces}»" if learnt else pieces, style="bold green" if learnt else "dim")
    return text


def _in_lines(console: Console, row: Row, most: int) -> list[Text]:
    """A row in at most `most` lines: its pieces are cut, but where learning begins and
    ends stays visible."""
    longest = WHOLE
    while True:
        lines = _wrapped(console, row, longest)
        if len(lines) <= most:
            return lines
        # The pieces are as short as may be, and still too many: lines of the middle are left out.
        if longest <= LEAST:
            half = (most - 1) // 2
            gap = Text(f"[... {len(lines) - 2 * half} lines ...]", style="dim")
            return [*lines[:half], gap, *lines[len(lines) - half :]]
        longest = longest * 2 // 3


def _wrapped(console: Console, row: Row, longest: int) -> list[Text]:
    """The lines of a row whose pieces are cut at so many characters, without blank ones at its end."""
    lines = list(supervised(row, longest).wrap(console, console.width))
    while lines and not lines[-1].plain.strip():
        lines.pop()
    return lines


def _clipped(text: str, longest: int) -> str:
    head, tail = longest * 2 // 3, longest // 3
    return (
        text
        if len(text) <= head + tail
        else f"{text[:head]} [... {len(text) - head - tail:,} characters ...] {text[-tail:]}"
    )
