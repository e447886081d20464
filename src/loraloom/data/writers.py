"""Rows into a file: JSONL, CSV or Parquet, by the ending of its name."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from loraloom.errors import DataError, RequestError

Rows = Sequence[Mapping[str, Any]]


def check_target(path: Path) -> None:
    """See that rows can be written to `path`, before any work is done for them.

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


def write_rows(path: Path, rows: Rows) -> None:
    """Write rows to a new file, whole or not at all.

    Raises:
        DataError: Parquet cannot hold a column, or the disk refuses.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        WRITERS[path.suffix.lower()](partial, rows)
        partial.rename(path)
    except OSError as error:
        raise DataError(
            f"{path} cannot be written: {error.strerror or error}", next="check the folder and the disk"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def json_line(row: Any) -> str:
    """A row, or one value of it, as one line of JSON."""
    return json.dumps(row, ensure_ascii=False, default=str)


def _columns(rows: Rows) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _jsonl(path: Path, rows: Rows) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{json_line(row)}\n" for row in rows)


def _csv(path: Path, rows: Rows) -> None:
    """Lists and mappings stand as JSON text in their cells."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        columns = _columns(rows)
        writer.writerow(columns)
        for row in rows:
            cells = [row.get(name) for name in columns]
            writer.writerow(
                [json_line(cell) if isinstance(cell, list | dict) else cell for cell in cells]
            )


def _parquet(path: Path, rows: Rows) -> None:
    import pyarrow
    from pyarrow import parquet

    columns = {name: [row.get(name) for row in rows] for name in _columns(rows)}
    try:
        parquet.write_table(pyarrow.table(columns), path)
    except pyarrow.ArrowException as error:
        raise DataError(
            "Parquet cannot hold a column of these rows",
            got=str(error),
            next="write JSONL: --out NAME.jsonl",
        ) from error


WRITERS: Mapping[str, Callable[[Path, Rows], None]] = {
    ".jsonl": _jsonl,
    ".csv": _csv,
    ".parquet": _parquet,
}
