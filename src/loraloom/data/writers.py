"""Rows into a file: JSONL, CSV or Parquet, by the ending of its name."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from loraloom.errors import DataError, RequestError

Rows = Sequence[Mapping[str, Any]]


def check_target(path: Path) -> None:
    """See that rows can be written to the new file `path`, before any work is done for them.

    Raises:
        RequestError: the ending is not one of `WRITERS`, the file exists already, or
            its folder does not.
    """
    if path.suffix.lower() not in WRITERS:
        raise RequestError(
            f"rows cannot be written to `{path}`",
            need=f"a name that ends in {', '.join(WRITERS)}",
            next=f"--out {path.stem}.jsonl",
        )
    if path.exists():
        raise RequestError(
            f"`{path}` already exists, and is not overwritten", next="remove it, or give another name"
        )
    if not path.parent.is_dir():
        raise RequestError(f"there is no folder `{path.parent}`", next=f"mkdir -p {path.parent}")


def json_line(row: Any) -> str:
    """A row, or one value of it, as one line of JSON."""
    return json.dumps(row, ensure_ascii=False, default=str)


class RowWriter(Protocol):
    """One file format. Every row is looked at before the first is written: some formats begin with what
    is known of all of them."""

    def look(self, rows: Rows) -> None:
        """Take in the columns of rows.

        Raises:
            DataError: the format cannot hold them.
        """
        ...

    def write(self, path: Path, lots: Iterable[Rows]) -> None:
        """Write rows that were looked at, lot by lot, to a new file."""
        ...


class _Jsonl:
    def look(self, rows: Rows) -> None:
        """One line says nothing of the others."""

    def write(self, path: Path, lots: Iterable[Rows]) -> None:
        with path.open("w", encoding="utf-8", newline="\n") as file:
            for rows in lots:
                file.writelines(f"{json_line(row)}\n" for row in rows)


class _Csv:
    """Lists and mappings stand as JSON text in their cells."""

    def __init__(self) -> None:
        self.columns = dict[str, None]()

    def look(self, rows: Rows) -> None:
        self.columns.update(dict.fromkeys(name for row in rows for name in row))

    def write(self, path: Path, lots: Iterable[Rows]) -> None:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(self.columns)
            for row in chain.from_iterable(lots):
                cells = [row.get(name) for name in self.columns]
                writer.writerow(
                    [json_line(cell) if isinstance(cell, list | dict) else cell for cell in cells]
                )


class _Parquet:
    """A column has the type that holds the values of all rows: fractions where any is one."""

    def __init__(self) -> None:
        self.schema: Any = None

    def look(self, rows: Rows) -> None:
        import pyarrow

        names = dict.fromkeys(name for row in rows for name in row)
        try:
            found: Any = pyarrow.table({name: [row.get(name) for row in rows] for name in names}).schema
            self.schema = (
                found
                if self.schema is None
                else pyarrow.unify_schemas([self.schema, found], promote_options="permissive")
            )
        except (pyarrow.ArrowException, OverflowError) as error:
            raise DataError(
                "Parquet cannot hold a column of these rows",
                got=str(error),
                next="write JSONL: --out NAME.jsonl",
            ) from error

    def write(self, path: Path, lots: Iterable[Rows]) -> None:
        import pyarrow
        from pyarrow import parquet

        with parquet.ParquetWriter(path, self.schema) as writer:
            for rows in lots:
                writer.write_table(pyarrow.Table.from_pylist(list(rows), schema=self.schema))


WRITERS: Mapping[str, Callable[[], RowWriter]] = {".jsonl": _Jsonl, ".csv": _Csv, ".parquet": _Parquet}
"""By the ending of the file's name."""
