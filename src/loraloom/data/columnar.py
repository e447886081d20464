"""Parquet and Arrow: columns with types, and what their writers say of them (names of
classes, an index)."""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from loraloom.data.table import Table, excerpt, listed, numbered, repeats
from loraloom.errors import DataError

_MOST_ROWS = 100_000_000
"""Of a file that can claim more rows than any machine holds."""
_INDEX = re.compile(r"__index_level_\d+__")
"""How pandas calls the columns of its index."""


def read_parquet(path: Path) -> Table:
    """Every row of a Parquet file."""
    with _readable(path, "Parquet"):
        import pyarrow.parquet as parquet

        # One file alone: `read_table` would also make columns of folder names such as "label=3".
        with cast(Any, parquet).ParquetFile(path) as file:
            _check_count(file.metadata.num_rows, path)
            _check_names(file.schema_arrow.names, path)
            return _table(file.read(), path)


def streamed_parquet(path: Path, size: int) -> Iterator[Table]:
    """The rows of a Parquet file in tables of at most `size` rows, one in memory at a time."""
    with _readable(path, "Parquet"):
        import pyarrow
        import pyarrow.parquet as parquet

        with cast(Any, parquet).ParquetFile(path) as file:
            _check_count(file.metadata.num_rows, path)
            _check_names(file.schema_arrow.names, path)
            for batch in file.iter_batches(batch_size=size):
                yield _table(cast(Any, pyarrow).Table.from_batches([batch]), path)


def read_arrow(path: Path) -> Table:
    """Every row of an Arrow file: a stream, as `datasets` writes it, or a file with its
    index at the end (Feather)."""
    with _readable(path, "Arrow"):
        import pyarrow

        ipc = cast(Any, pyarrow).ipc
        with path.open("rb") as start:
            has_index = start.read(6) == b"ARROW1"
        with (ipc.open_file if has_index else ipc.open_stream)(
            cast(Any, pyarrow).OSFile(str(path))
        ) as file:
            batches = (
                [file.get_batch(i) for i in range(file.num_record_batches)] if has_index else list(file)
            )
            _check_count(sum(batch.num_rows for batch in batches), path)
            _check_names(file.schema.names, path)
            table = cast(Any, pyarrow).Table.from_batches(batches, file.schema)
            # Offsets and lengths are taken from the file as they are: unchecked, they
            # could point anywhere.
            table.validate(full=True)
            return _table(table, path)


@contextmanager
def _readable(path: Path, kind: str) -> Generator[None]:
    try:
        import pyarrow
    except ImportError as error:
        raise DataError(
            f"{path} needs pyarrow to be read", next="pip install pyarrow, or convert the file to JSONL"
        ) from error
    try:
        yield
    except DataError:
        raise
    except (pyarrow.ArrowException, LookupError, OSError, OverflowError, TypeError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        # Of an end that comes too early, pyarrow too says that it cannot be read from the disk.
        raise DataError(
            f"{path} is not {'an' if kind == 'Arrow' else 'a'} {kind} file that can be read",
            got=excerpt(str(error)),
            next="write it again",
        ) from error


def _table(held: Any, path: Path) -> Table:
    notes: list[str] = []
    index = [name for name in held.schema.names if _INDEX.fullmatch(name)]
    if index and len(index) < len(held.schema.names):
        held = held.drop_columns(index)
        notes.append(f"`{listed(index)}` is an index that pandas wrote: it is left out")
    rows: list[Mapping[str, Any]] = held.to_pylist()
    for column, names in _class_names(held.schema).items():
        beside = f"{column}_name"
        if beside not in held.schema.names and all(_is_class(row[column], names) for row in rows):
            rows = [{**row, beside: _named(row[column], names)} for row in rows]
            notes.append(f"the file names the classes of `{column}`: {listed(_numbered(names))}")
    return numbered(path, rows, notes)


def _class_names(schema: Any) -> dict[str, Sequence[str]]:
    """Column -> names of its classes by number, where `datasets` wrote them into the file."""
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        named = {
            column: feature["names"]
            for column, feature in features.items()
            if feature.get("_type") == "ClassLabel"
        }
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        return {}
    return {
        column: names
        for column, names in named.items()
        if column in schema.names
        and isinstance(names, list)
        and names
        and all(isinstance(name, str) for name in names)
    }


def _is_class(value: Any, names: Sequence[str]) -> bool:
    return value is None or (isinstance(value, int) and -1 <= value < len(names))


def _named(value: int | None, names: Sequence[str]) -> str | None:
    return None if value is None or value < 0 else names[value]


def _numbered(names: Sequence[str]) -> list[str]:
    shown = [f"{number} {excerpt(name)}" for number, name in enumerate(names[:5])]
    return [*shown, f"... {len(names) - 1} {excerpt(names[-1])}"] if len(names) > 5 else shown


def _check_names(names: Sequence[str], path: Path) -> None:
    if twice := repeats(names):
        raise DataError(
            f"{path} has columns of the same name",
            got=listed(twice),
            need="one name a column",
            next="rename one",
        )


def _check_count(rows: int, path: Path) -> None:
    if rows > _MOST_ROWS:
        raise DataError(
            f"{path} holds {rows:,} rows",
            need=f"at most {_MOST_ROWS:,}",
            next="write a part of them to another file",
        )
