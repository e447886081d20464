"""Where commands write for people."""

from __future__ import annotations

import os

from rich.console import Console

PLAIN_WIDTH = 140
"""Columns of text where there is no terminal to ask; COLUMNS still wins."""
WIDEST = 120
"""Sentences in a line longer than this are hard to read."""


def plain_console() -> Console:
    """stdout, without guesses at what a number or a colon might mean."""
    console = Console(highlight=False, emoji=False)
    if not console.is_terminal and not os.environ.get("COLUMNS"):
        console.width = PLAIN_WIDTH
    return console
