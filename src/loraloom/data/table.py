"""Rows as they were read, each with the place it came from, so that every complaint can name a line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Table:
    """Rows of one source, in the order of the source.

    `places[i]` is a (prefix, number) pair that `origin` joins: ("train.jsonl:", 12) or ("train.parquet, row ", 12).
    """

    source: str
    rows: tuple[Mapping[str, Any], ...] = ()
    places: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()
    """What was decided while reading and a person should know: a separator that was taken, columns that were left out."""

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Every column that any row has, in order of first appearance."""
        return tuple(dict.fromkeys(name for row in self.rows for name in row))

    def origin(self, index: int) -> str:
        """Where row `index` stands: "file:line", or "file, row N" where a format has no lines."""
        prefix, number = self.places[index]
        return f"{prefix}{number}"

    def take(self, indices: Iterable[int]) -> Table:
        """A table of these rows, which keep their origins."""
        chosen = list(indices)
        return Table(self.source, tuple(self.rows[i] for i in chosen), tuple(self.places[i] for i in chosen), self.notes)


def join(source: str, tables: Sequence[Table]) -> Table:
    """One table of all rows of `tables`, in their order."""
    return Table(
        source,
        tuple(row for table in tables for row in table.rows),
        tuple(place for table in tables for place in table.places),
        once(note for table in tables for note in table.notes),
    )


def once(texts: Iterable[str]) -> tuple[str, ...]:
    """Each text once, in order of first appearance."""
    return tuple(dict.fromkeys(texts))


def listed(names: Iterable[str]) -> str:
    """Names as a person reads them in a message: "a, b, c" or "none"."""
    return ", ".join(names) or "none"
