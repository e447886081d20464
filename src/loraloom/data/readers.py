"""One reader a file format: path in, table out. A fault is a `DataError` that names the file and the line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from loraloom.data.table import Table, listed
from loraloom.errors import DataError

Numbered = Iterator[tuple[int, Mapping[str, Any]]]
"""Rows with their 1-based line or row number."""

_EXCERPT = 60


def read_file(path: Path) -> Table:
    """Read one data file; the suffix says how.

    Raises:
        DataError: unknown suffix, unreadable or empty file, bad UTF-8, or a broken line (named).
    """
    reader, between = _READERS[path.suffix.lower()]
    try:
        numbered = list(reader(path))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}", next="check the file and its permissions") from error
    if not numbered:
        raise DataError(
            f"{path} has no rows", got="an empty file", need="at least one row", next="check how the file was written"
        )
    return Table(str(path), tuple(row for _, row in numbered), tuple((f"{path}{between}", number) for number, _ in numbered))


def _text(path: Path) -> str:
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            "the text is not UTF-8",
            where=f"{path}:{line}",
            got=f"byte 0x{raw[error.start]:02x}",
            next=f"convert it, for example: iconv -f latin1 -t utf-8 {path.name} > utf8{path.suffix}",
        ) from error


def _jsonl(path: Path) -> Numbered:
    # Only "\n" ends a line of JSONL: str.splitlines would also cut at characters that JSON strings may hold.
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(
                f"broken JSON: {error.msg} at character {error.pos + 1}",
                where=f"{path}:{number}",
                got=_excerpt(line),
                need="one JSON object a line",
                next="repair or remove this line",
            ) from error
        yield number, _object(value, f"{path}:{number}")


def _json(path: Path) -> Numbered:
    text = _text(path)
    if not text.strip():
        return
    try:
        value: Any = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"broken JSON: {error.msg}",
            where=f"{path}:{error.lineno}",
            need='a list of objects, or {"data": [...]}',
            next="if the file has one object a line, name it .jsonl",
        ) from error
    if isinstance(value, dict):
        value = cast(dict[str, Any], value).get("data", value)
    if not isinstance(value, list):
        raise DataError(
            f"{path} holds no list of rows",
            got=_excerpt(text.strip()),
            need='a list of objects, or {"data": [...]}',
            next="if the file has one object a line, name it .jsonl",
        )
    for number, item in enumerate(cast(list[Any], value), start=1):
        yield number, _object(item, f"{path}, row {number}")


def _object(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise DataError(
            "this row is not an object",
            where=where,
            got=_excerpt(json.dumps(value, ensure_ascii=False)),
            need='an object with named columns, such as {"text": "..."}',
            next="repair or remove this row",
        )
    return cast(dict[str, Any], value)


def _separated(separator: str) -> Callable[[Path], Numbered]:
    def read(path: Path) -> Numbered:
        csv.field_size_limit(2**31 - 1)
        lines = csv.reader(io.StringIO(_text(path), newline=""), delimiter=separator, strict=True)
        header: list[str] | None = None
        start = 1
        try:
            for fields in lines:
                number, start = start, lines.line_num + 1
                if not fields:
                    continue
                if header is None:
                    header = _header(fields, f"{path}:{number}")
                    continue
                if len(fields) != len(header):
                    raise DataError(
                        f"this row has {len(fields)} fields, the header has {len(header)}",
                        where=f"{path}:{number}",
                        got=_excerpt(separator.join(fields)),
                        need=f"the columns {listed(header)}",
                        next="quote fields that hold the separator or a line break",
                    )
                yield number, dict(zip(header, fields, strict=True))
        except csv.Error as error:
            raise DataError(f"broken row: {error}", where=f"{path}:{start}", next="check the quotes around this row") from error

    return read


def _header(fields: list[str], where: str) -> list[str]:
    names = [field.strip() for field in fields]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(
            f"the header repeats {listed(repeated)}", where=where, got=listed(names), need="one name a column", next="rename it"
        )
    return names


def _parquet(path: Path) -> Numbered:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise DataError(f"{path} needs pyarrow to be read", next="pip install pyarrow, or convert the file to JSONL") from error
    try:
        rows = cast(Iterable[Mapping[str, Any]], cast(Any, parquet).read_table(path).to_pylist())
    except (arrow.ArrowInvalid, arrow.ArrowNotImplementedError) as error:
        raise DataError(
            f"{path} is not a Parquet file that can be read", got=_excerpt(str(error)), next="write it again"
        ) from error
    yield from enumerate(rows, start=1)


def _paragraphs(path: Path) -> Numbered:
    held: list[str] = []
    first = 1
    for number, line in enumerate([*_text(path).split("\n"), ""], start=1):
        if line.strip():
            if not held:
                first = number
            held.append(line.rstrip())
        elif held:
            yield first, {"text": "\n".join(held)}
            held = []


def _excerpt(text: str) -> str:
    return text if len(text) <= _EXCERPT else text[:_EXCERPT] + "..."


_READERS: dict[str, tuple[Callable[[Path], Numbered], str]] = {
    ".jsonl": (_jsonl, ":"),
    ".ndjson": (_jsonl, ":"),
    ".json": (_json, ", row "),
    ".csv": (_separated(","), ":"),
    ".tsv": (_separated("\t"), ":"),
    ".parquet": (_parquet, ", row "),
    ".txt": (_paragraphs, ":"),
}

SUFFIXES = tuple(_READERS)
"""File name endings that `read_file` takes."""
