"""Columns that name what a row is taken from: a conversation, a document, a patient.
Rows of one value belong together."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from loraloom.data.near import Labels
from loraloom.data.table import Table, listed
from loraloom.errors import DataError

KNOWN = re.compile(
    r"(conversation|conv|dialogue|dialog|chat|session|thread|messagetree|document|doc|article|passage|paragraph|context"
    r"|page|story|episode|prompt|question|group|cluster|patient|subject)(id|hash|uuid|url)|group|url"
)
"""Names, without the signs between their words. Who wrote a row is not among them."""
FEWEST_VALUES = 10
LARGEST_SHARE = 1 / 3
"""Share of the rows that one value may have in a column that was not asked for: above it the column
names a kind of row, not a group."""


def group_columns(table: Table, asked: str | None) -> tuple[dict[str, Labels], list[str]]:
    """For each column that groups rows, the first row with the value of each row; and
    notes on columns that cannot.

    Args:
        asked: as `data.group_column`: a name, "auto" for those whose names are known, None for none.

    Raises:
        DataError: there is no column of the name asked for.
    """
    if asked is None:
        return {}, []
    if asked != "auto":
        if asked not in table.columns:
            raise DataError(
                f"`data.group_column` is `{asked}`, but {table.source} has no such column",
                got=f"the columns {listed(table.columns)}",
                next="set `data.group_column` to one of them, or leave it at auto",
            )
        values = _values(table, asked)
        missing = values.count(None)
        return {asked: numbered(values)}, (
            [f"{missing:,} rows have no `{asked}`: each is a group of its own"] if missing else []
        )
    found: dict[str, Labels] = {}
    notes: list[str] = []
    for column in table.columns:
        if not KNOWN.fullmatch(re.sub(r"[\W_]", "", column).casefold()):
            continue
        values = _values(table, column)
        different = len({*values} - {None})
        labels = numbered(values)
        if different == len(values) - values.count(None):
            continue  # it names rows
        if different < FEWEST_VALUES or np.bincount(labels).max() > LARGEST_SHARE * len(table):
            notes.append(
                f"the rows of one `{column}` are not kept together: it has {different:,} values; set"
                f" `data.group_column={column}` if they must be"
            )
            continue
        found[column] = labels
    return found, notes


def numbered(keys: Sequence[Hashable]) -> Labels:
    """For each key, the place where it first occurs; None is a key of its own each time."""
    first: dict[Hashable, int] = {}
    return np.array(
        [row if key is None else first.setdefault(key, row) for row, key in enumerate(keys)],
        dtype=np.int64,
    )


def _values(table: Table, column: str) -> list[str | None]:
    values: list[Any] = [row.get(column) for row in table.rows]
    return [(None if value is None else str(value).strip()) or None for value in values]
