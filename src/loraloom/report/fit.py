"""Tables that fit where they are shown: columns leave by rank, texts fold, numbers are never cut."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from textwrap import fill

from rich import box
from rich.cells import cell_len
from rich.console import Group
from rich.table import Table
from rich.text import Text

GAP = 2
"""Spaces between columns."""
EDGES = 2
"""Spaces that the frame takes, left and right together."""
LEAST_TEXT = 20
"""A text is folded to no less than this; before that, columns leave."""
CLAUSE = re.compile(r"[;:] | \(")
"""Where a sentence may end early and still be true."""


@dataclass(frozen=True, eq=False)
class Shown:
    """One column with its cells, from the first row to the last."""

    heading: str
    """Its lines stand above the rule."""
    cells: Sequence[Text]
    rank: int = 0
    """Columns of rank 0 always stay; the higher that of another, the sooner it leaves."""
    number: bool = True
    """Numbers stand at the right and in one piece; texts at the left, and fold where
    there is no room."""
    note: str = ""
    """What it means: a line below the table, where the column is shown."""

    @property
    def name(self) -> str:
        """The heading in one line."""
        return " ".join(self.heading.split())

    @property
    def widest(self) -> int:
        """Columns of text that all of it takes in one piece."""
        texts = [self.heading, *(cell.plain for cell in self.cells)]
        return max(cell_len(line) for text in texts for line in text.split("\n"))

    @property
    def least(self) -> int:
        return self.widest if self.number else min(self.widest, LEAST_TEXT)


def fitted(
    columns: Iterable[Shown],
    width: int | None,
    *,
    styles: Sequence[str] = (),
    captions: Sequence[str] = (),
    more: str = "--all",
) -> Group:
    """The table, with lines about it below; the last names what was left out.

    Args:
        width: columns of text to fit into; None shows everything at whatever width it takes.
        styles: of each row.
        captions: lines below the table.
        more: what shows the columns that were left out.
    """
    shown, left_out = chosen(columns, width)
    widths = _widths(shown, width)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), width=_total(widths))
    lines = max(len(column.heading.split("\n")) for column in shown)
    for column, wide in zip(shown, widths, strict=True):
        justify = "right" if column.number else "left"
        heading = Text("\n" * (lines - len(column.heading.split("\n"))) + column.heading)
        table.add_column(heading, justify=justify, width=wide, no_wrap=column.number, overflow="fold")
    for number, row in enumerate(zip(*(column.cells for column in shown), strict=True)):
        table.add_row(*row, style=styles[number] if styles else None)
    captions = [*captions, *(column.note for column in shown if column.note)]
    if left_out:
        captions.append(
            f"not shown: {', '.join(column.name for column in left_out)} ({more} shows them)"
        )
    return Group(
        table,
        *(
            Text(wrapped(caption, width), style="dim", no_wrap=True, overflow="ignore")
            for caption in captions
        ),
    )


def wrapped(text: str, width: int | None, indent: str = "") -> str:
    """`text` in lines of `width`, broken between words only: paths and numbers stay
    whole. None breaks nothing.

    Args:
        indent: begins every line but the first.
    """
    if width is None:
        return text
    return fill(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def shortened(text: str, room: int) -> str:
    """`text` in at most `room` characters: its first clauses, else its first words and
    "…". No number loses its unit."""
    if len(text) <= room:
        return text
    ends = [found.start() for found in CLAUSE.finditer(text) if found.start() <= room]
    if ends and ends[-1] >= room // 3:
        return text[: ends[-1]]
    words = text[: max(0, room - 1)].split(" ")[:-1]
    while words and words[-1][-1:].isdigit():
        words.pop()
    return f"{' '.join(words)} …" if words else ""


def chosen(columns: Iterable[Shown], width: int | None) -> tuple[list[Shown], list[Shown]]:
    """What is shown, in its order, and what leaves, the most important first: each column that fits
    beside those before it."""
    every = list(columns)
    ranked = sorted(every, key=lambda column: column.rank)
    kept = list[Shown]()
    for column in ranked:
        if (
            width is None
            or not column.rank
            or _total([column.least for column in (*kept, column)]) <= width
        ):
            kept.append(column)
    return [column for column in every if column in kept], [
        column for column in ranked if column not in kept
    ]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1) + EDGES


def _widths(shown: Sequence[Shown], width: int | None) -> list[int]:
    """Each column at its least, and what is left over for texts that would take more,
    the most important first."""
    if width is None:
        return [column.widest for column in shown]
    widths = [column.least for column in shown]
    spare = max(0, width - _total(widths))
    for place in sorted(range(len(shown)), key=lambda place: shown[place].rank):
        given = min(spare, shown[place].widest - widths[place])
        widths[place] += given
        spare -= given
    return widths
