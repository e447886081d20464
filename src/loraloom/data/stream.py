"""Rows of a source one after the other, read from the start each time that they are wanted.

JSON Lines and Parquet are never in memory as a whole. What other formats mean is decided by all of their
rows (which separator, which columns are an index), so they are read once and kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from loraloom.data.columnar import streamed_parquet
from loraloom.data.json_rows import is_lines, streamed_lines
from loraloom.data.load import Source, load_table, named, shown
from loraloom.data.table import Table, once
from loraloom.errors import DataError

Placed = tuple[Mapping[str, Any], tuple[str, int]]
"""A row and where it stands, as `Table.places` has it."""

_BATCH = 1024
"""Rows of a Parquet file that are in memory at once."""


@dataclass(frozen=True)
class RowStream:
    """Rows of one source. `read` begins anew each time; `notes` as `Table.notes`."""

    source: str
    read: Callable[[], Iterator[Placed]]
    notes: tuple[str, ...] = ()

    def tables(self, size: int) -> Iterator[Table]:
        """All rows in their order, in tables of `size` rows; the last may have fewer."""
        rows = self.read()
        while lot := list(islice(rows, size)):
            yield Table(self.source, tuple(row for row, _ in lot), tuple(place for _, place in lot))

    def survey(self) -> tuple[Table, int]:
        """The rows that each bring a column that no row before them had, and how many rows there are."""
        known = set[str]()
        telling: list[Placed] = []
        count = 0
        for row, place in self.read():
            count += 1
            if not known.issuperset(row):
                known.update(row)
                telling.append((row, place))
        found = Table(self.source, tuple(row for row, _ in telling), tuple(at for _, at in telling))
        return replace(found, notes=self.notes), count


def stream_of_table(table: Table) -> RowStream:
    """Rows that are in memory."""
    return RowStream(table.source, lambda: zip(table.rows, table.places, strict=True), notes=table.notes)


def stream_of(
    source: Source, *, split: str = "train", max_rows: int | None = None, seed: int = 42
) -> RowStream:
    """The rows of `source`. Arguments and errors as of `load_table`; rows of files that are streamed are
    checked as they are read."""
    names, notes = ([], []) if max_rows is not None else named(source)
    files = [_streamed(Path(name).expanduser()) for name in names]
    streams = [file for file in files if file is not None]
    if not streams or len(streams) < len(files):
        return stream_of_table(load_table(source, split=split, max_rows=max_rows, seed=seed))
    return RowStream(
        streams[0].source if len(streams) == 1 else shown(source),
        lambda: chain.from_iterable(stream.read() for stream in streams),
        once([*notes, *(note for stream in streams for note in stream.notes)]),
    )


def _streamed(path: Path) -> RowStream | None:
    """The rows of a file that can be read bit by bit; None for any other source."""
    try:
        if path.suffix.lower() in (".jsonl", ".ndjson") and path.is_file() and is_lines(path):
            return RowStream(str(path), lambda: _of_lines(path))
        if path.suffix.lower() == ".parquet" and path.is_file():
            first = next(streamed_parquet(path, 1), None)
            if first is not None:
                return RowStream(str(path), lambda: _of_parquet(path), first.notes)
    except (DataError, OSError, ValueError):
        return None  # reading it as a whole says what is wrong with it
    return None


def _of_lines(path: Path) -> Iterator[Placed]:
    for number, row in streamed_lines(path):
        yield row, (f"{path}:", number)


def _of_parquet(path: Path) -> Iterator[Placed]:
    number = 0
    for table in streamed_parquet(path, _BATCH):
        for row in table.rows:
            number += 1
            yield row, (f"{path}, row ", number)
