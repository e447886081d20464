"""Where commands write for people."""

from __future__ import annotations

import os

from rich.console import Console
from rich.text import Text

from loraloom.report.fit import wrapped

PLAIN_WIDTH = 140
"""Columns of text where there is no terminal to ask; COLUMNS still wins."""
WIDEST = 120
"""Sentences in a line longer than this are hard to read."""
FEWEST_ROWS = 6
"""A list shows at least this many rows, however low the screen."""


def plain_console() -> Console:
    """stdout, without guesses at what a number or a colon might mean."""
    console = Console(highlight=False, emoji=False)
    if not console.is_terminal and not os.environ.get("COLUMNS"):
        console.width = PLAIN_WIDTH
    return console


def is_bounded(console: Console) -> bool:
    """Whether lines have a width to keep to. A file or a pipe has none: there nothing
    is left out, and no line is broken."""
    return console.is_terminal or bool(os.environ.get("COLUMNS"))


def table_width(console: Console, *, everything: bool = False) -> int | None:
    """Columns of text that a table may take; None where it may take what it needs."""
    return console.width if is_bounded(console) and not everything else None


def rows_left(console: Console, besides: int, *, everything: bool = False) -> int | None:
    """Rows of a list that fit on one screen beside so many other lines; None where
    there is no screen."""
    return max(FEWEST_ROWS, console.height - besides) if console.is_terminal and not everything else None


def sentence_width(console: Console) -> int | None:
    """Columns of text that a sentence is broken into; None where nothing is broken."""
    return min(console.width, WIDEST) if is_bounded(console) else None


def say(console: Console, text: str = "", indent: str = "") -> None:
    """A sentence, broken between words where lines have a width to keep to.

    Args:
        indent: begins every line but the first.
    """
    console.print(Text(wrapped(text, sentence_width(console), indent)), soft_wrap=True)


def verbatim(console: Console, text: str = "") -> None:
    """A line that is never broken or styled: paths and commands stay whole when they are copied."""
    console.print(Text(text), soft_wrap=True)
