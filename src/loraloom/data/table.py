"""Rows as they were read, each with the place it came from, so that every message can name a line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Table:
    """Rows of one source, in the order of the source.

    `places[i]` is a (prefix, number) pair that `origin` joins: ("train.jsonl:", 12) or
    ("train.parquet, row ", 12).
    """

    source: str
    rows: tuple[Mapping[str, Any], ...] = ()
    places: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()
    """What was decided while reading that a person should know: the separator used,
    columns that were left out."""
    parts: tuple[str, ...] = ()
    """The name of the source of each row, where several are mixed; empty where nothing goes by it."""

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
        return Table(
            self.source,
            tuple(self.rows[i] for i in chosen),
            tuple(self.places[i] for i in chosen),
            self.notes,
            tuple(self.parts[i] for i in chosen) if self.parts else (),
        )


def lined(
    path: Path, numbered: Iterable[tuple[int, Mapping[str, Any]]], notes: Iterable[str] = ()
) -> Table:
    """The rows of a file whose rows begin on lines, each with the number of its line."""
    found = list(numbered)
    return Table(
        str(path),
        tuple(row for _, row in found),
        tuple((f"{path}:", line) for line, _ in found),
        _placed(path, notes),
    )


def numbered(path: Path, rows: Iterable[Mapping[str, Any]], notes: Iterable[str] = ()) -> Table:
    """The rows of a file that has no lines."""
    found = tuple(rows)
    return Table(
        str(path),
        found,
        tuple((f"{path}, row ", i) for i in range(1, len(found) + 1)),
        _placed(path, notes),
    )


def _placed(path: Path, notes: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"{path}: {note}" for note in notes)


def join(source: str, tables: Sequence[Table]) -> Table:
    """One table of all rows of `tables`, in their order. A note that several of them
    have is kept once."""
    files: dict[str, list[str]] = {}
    for table in tables:
        for note in table.notes:
            files.setdefault(note.removeprefix(f"{table.source}: "), []).append(note)
    return Table(
        source,
        tuple(row for table in tables for row in table.rows),
        tuple(place for table in tables for place in table.places),
        tuple(
            notes[0] if len(notes) == 1 else f"{notes[0]} (so in {len(notes)} files)"
            for notes in files.values()
        ),
        _parts(tables),
    )


def _parts(tables: Sequence[Table]) -> tuple[str, ...]:
    """Of each row of several tables; "" where its table has none."""
    if not any(table.parts for table in tables):
        return ()
    return tuple(part for table in tables for part in table.parts or [""] * len(table))


def once(texts: Iterable[str]) -> tuple[str, ...]:
    """Each text once, in order of first appearance."""
    return tuple(dict.fromkeys(texts))


def listed(names: Iterable[str]) -> str:
    """Names as a person reads them in a message: "a, b, c" or "none"."""
    return ", ".join(names) or "none"


def shortened(names: Iterable[str], between: str = ", ", most: int = 4) -> str:
    """The first names of what may be a long list, and how many more there are."""
    known = list(names)
    more = f"{between}and {len(known) - most:,} more" if len(known) > most else ""
    return between.join(known[:most]) + more


def counted(number: int, thing: str) -> str:
    """ "1 row", "2,000 rows"."""
    return f"{number:,} {thing}{'s' * (number != 1)}"


def repeats(names: Iterable[str]) -> list[str]:
    """The names that stand more than once."""
    return [name for name, count in Counter(names).items() if count > 1]


def excerpt(text: str, longest: int = 60) -> str:
    """The start of a text, as much as a message needs."""
    return text if len(text) <= longest else text[:longest] + "..."
