"""Columns that look like labels, in rows that were read without one. They are not used,
but a note says how to use them."""

from __future__ import annotations

from collections.abc import Collection

from loraloom.data.classes import count_labels, label_text
from loraloom.data.table import Table

NAMES = frozenset(
    (
        "label",
        "labels",
        "label_text",
        "label_name",
        "class",
        "classes",
        "class_name",
        "class_label",
        "category",
        "categories",
        "intent",
        "sentiment",
        "emotion",
        "topic",
        "polarity",
        "target",
        "gold",
        "gold_label",
        "rating",
        "stars",
        "score",
        "tag",
        "tags",
        "is_spam",
        "spam",
        "toxic",
        "is_toxic",
        "stance",
        "genre",
    )
)
"""What such columns are called, in small letters with `_` for any other sign."""
PAIRS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("text", "text_pair"),
    ("question", "passage"),
    ("question", "context"),
    ("question", "sentence"),
    ("query", "passage"),
    ("query", "document"),
)
"""Columns that hold the two texts of a pair to be judged."""


def likely_labels(table: Table, used: Collection[str] = ()) -> list[str]:
    """Columns that are called like labels and hold few different short values."""
    return [
        name
        for name in table.columns
        if name not in used and _plain(name) in NAMES and _is_shared(table, name)
    ]


def label_advice(table: Table, used: Collection[str] = ()) -> str | None:
    """The setting that takes a column for the label, for a message; None where none looks like one."""
    likely = likely_labels(table, used)
    return f"--set data.label_column={likely[0]}" if likely else None


def label_notes(table: Table, used: Collection[str]) -> list[str]:
    """One sentence about labels that rows read as plain text seem to have."""
    likely = likely_labels(table, used)
    if not likely:
        return []
    named = " and ".join(f"`{name}`" for name in likely)
    look = f"{named} looks like a label" if len(likely) == 1 else f"{named} look like labels"
    return [
        f"{look}, and the rows are read as plain text: to learn it, --set data.label_column={likely[0]}"
    ]


def pair_columns(table: Table) -> tuple[str, str] | None:
    """The two texts of rows in which a pair is to be judged; None where there are none."""
    return next((pair for pair in PAIRS if set(pair) <= set(table.columns)), None)


def _plain(name: str) -> str:
    return "_".join("".join(letter if letter.isalnum() else " " for letter in name.casefold()).split())


def _is_shared(table: Table, column: str) -> bool:
    """Whether the values are short and most of them stand in several rows."""
    values = [row.get(column) for row in table.rows]
    if any(isinstance(value, list | dict) or len(str(value)) > 80 for value in values):
        return False
    counts = count_labels(label_text(value, "words") for value in values)
    return 2 <= len(counts) <= max(2, counts.total() // 2)
