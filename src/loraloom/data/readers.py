"""One reader for each file format: path in, table out. A fault is a `DataError` that
names the file and the line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from loraloom.data.columnar import read_arrow, read_parquet
from loraloom.data.contents import PACKED, inner_name, text_of
from loraloom.data.json_rows import read_json, read_lines
from loraloom.data.separated import separated
from loraloom.data.table import Table, lined, listed
from loraloom.errors import DataError


def read_file(path: Path, split: str = "train") -> Table:
    """Read one data file; the ending says how, without that of a packing (train.jsonl.gz).

    Args:
        split: which rows are meant where a file holds those of several splits, as a JSON object may.

    Raises:
        DataError: an unknown ending, an unreadable or empty file, a file that is not
            text, or a broken line (named).
    """
    suffix = inner_name(path).suffix.lower()
    if not is_data(path):
        raise DataError(
            f"{path} has an ending that is not known",
            got=path.suffix or "no ending",
            need=f"one of {listed(SUFFIXES)}, or a text format packed ({listed(PACKED)})",
            next=_ADVICE.get(suffix, "rename the file after what it holds"),
        )
    try:
        table = read_json(path, split) if suffix == ".json" else _READERS[suffix](path)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror or error}",
            next="check the file and its permissions",
        ) from error
    if not len(table):
        raise DataError(
            f"{path} has no rows",
            got="an empty file",
            need="at least one row",
            next="check how the file was written",
        )
    return table


def is_data(path: Path) -> bool:
    """Whether `read_file` knows the ending."""
    suffix = inner_name(path).suffix.lower()
    return suffix in _READERS and (suffix not in _BINARY or inner_name(path) == path)


def _paragraphs(path: Path) -> Table:
    rows: list[tuple[int, Mapping[str, str]]] = []
    held: list[str] = []
    first = 1
    lines = text_of(path).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for number, line in enumerate([*lines, ""], start=1):
        if line.strip():
            if not held:
                first = number
            held.append(line.rstrip())
        elif held:
            rows.append((first, {"text": "\n".join(held)}))
            held = []
    long = len(rows) == 1 and rows[0][1]["text"].count("\n")
    note = f"all {long + 1:,} lines are one row: a blank line would begin another"
    return lined(path, rows, [note] if long else ())


_READERS: dict[str, Callable[[Path], Table]] = {
    ".jsonl": read_lines,
    ".ndjson": read_lines,
    ".json": lambda path: read_json(path, "train"),
    ".csv": separated(","),
    ".tsv": separated("\t"),
    ".parquet": read_parquet,
    ".arrow": read_arrow,
    ".txt": _paragraphs,
}
_BINARY = (".parquet", ".arrow")
"""These are compressed inside, so they are not taken packed once more."""
_ADVICE = {
    ".xlsx": "save the sheet as CSV",
    ".xls": "save the sheet as CSV",
    ".ods": "save the sheet as CSV",
    ".zip": "unpack it",
    ".tar": "unpack it",
    ".tgz": "unpack it",
    ".yaml": "if this is a config, name it without --data",
    ".yml": "if this is a config, name it without --data",
}

SUFFIXES = tuple(_READERS)
"""File name endings that `read_file` takes, beside the packed ones."""
