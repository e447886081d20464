"""One reader a file format: path in, table out. A fault is a `DataError` that names the file and the line."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from loraloom.data.table import Table, listed
from loraloom.errors import DataError

Numbered = Iterator[tuple[int, Mapping[str, Any]]]
"""Rows with their 1-based line or row number."""

_EXCERPT = 60
_DEEPEST = 100
"""Brackets within brackets: far more than any row has, far fewer than any reader can follow."""
_MOST_ROWS = 100_000_000
"""Of a compressed file, which can claim more rows than any machine holds."""


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
        where = f"{path}:{number}"
        try:
            value = _parsed(line, where)
        except json.JSONDecodeError as error:
            raise DataError(
                f"broken JSON: {error.msg} at character {error.pos + 1}",
                where=where,
                got=_excerpt(line),
                need="one JSON object a line",
                next="repair or remove this line",
            ) from error
        # Walking through every value would cost as much as reading it, and only these can hold what the walk looks for.
        if "\\u" in line or line.count("[") + line.count("{") > _DEEPEST:
            _check_value(value, where)
        yield number, _object(value, where)


def _json(path: Path) -> Numbered:
    text = _text(path)
    if not text.strip():
        return
    try:
        value = _parsed(text, str(path))
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
        where = f"{path}, row {number}"
        _check_value(item, where)
        yield number, _object(item, where)


def _parsed(text: str, where: str) -> Any:
    """The JSON value in `text`. Broken JSON is left to the caller, who knows the line.

    Raises:
        DataError: a value that JSON allows and Python does not: brackets without end, a number of thousands of digits.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except RecursionError as error:
        raise _too_deep(where) from error
    except ValueError as error:
        raise DataError("a number has too many digits", where=where, next="write it as text, in quotes") from error


def _check_value(value: Any, where: str, depth: int = 0) -> None:
    """Refuse what no tokenizer and no file could take later on: endless nesting, and halves of characters."""
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise DataError(
                "a text holds half a character (a lone surrogate)",
                where=where,
                got=_excerpt(value),
                need="text that can be written as UTF-8",
                next="repair or remove this row",
            )
    elif isinstance(value, dict | list):
        if depth == _DEEPEST:
            raise _too_deep(where)
        for item in _parts(cast(dict[str, Any] | list[Any], value)):
            _check_value(item, where, depth + 1)


def _parts(value: dict[str, Any] | list[Any]) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value
        yield from value.values()
    else:
        yield from value


def _too_deep(where: str) -> DataError:
    return DataError(f"the brackets are nested deeper than {_DEEPEST}", where=where, next="repair or remove this row")


def _object(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise DataError(
            "this row is not an object",
            where=where,
            got=_excerpt(str(value) if isinstance(value, str | int | float) else json.dumps(value, ensure_ascii=False)),
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
    if repeated := sorted(name for name, count in Counter(names).items() if count > 1):
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
        # One file alone: `read_table` would also make columns of folder names such as "label=3".
        with cast(Any, parquet).ParquetFile(path) as file:
            _check_count(file.metadata.num_rows, path)
            rows = cast(Iterable[Mapping[str, Any]], file.read().to_pylist())
    except DataError:
        raise
    except (arrow.ArrowException, LookupError, OverflowError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} is not a Parquet file that can be read", got=_excerpt(str(error)), next="write it again"
        ) from error
    yield from enumerate(rows, start=1)


def _check_count(rows: int, path: Path) -> None:
    if rows > _MOST_ROWS:
        raise DataError(
            f"{path} holds {rows:,} rows", need=f"at most {_MOST_ROWS:,}", next="write a part of them to another file"
        )


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
