"""JSON in the shapes that tools write it in: one object a line, one after the other, a list, a list
under a key, by column."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from loraloom.data.contents import text_of
from loraloom.data.split_names import split_of
from loraloom.data.table import Table, excerpt, lined, listed, numbered
from loraloom.errors import DataError

_DEEPEST = 100
"""Brackets within brackets: far more than any row has, far fewer than would overflow
the reader's stack."""
_NEED = 'a list of objects, or one under a key: {"data": [...]}'
_SPACE = re.compile(r"[\s\ufeff]*")
_ROWS_KEYS = ("data", "rows")
"""Under which key rows are looked for before any other."""


def read_lines(path: Path) -> Table:
    """JSON Lines. A file that holds a list or other JSON in spite of its name is read
    as what it is, with a note."""
    text = text_of(path)
    try:
        return lined(path, objects(text.split("\n"), path))
    except _NotLines as error:
        value = _whole(text, path)
        if (
            isinstance(value, list)
            and value
            and all(isinstance(item, dict) for item in cast(list[Any], value))
        ):
            return _table(cast(list[Any], value), path, "this is one JSON list, and is read as such")
        if (table := _documents(text, path)) is not None:
            return table
        raise error.fault from None


def read_json(path: Path, split: str) -> Table:
    """One JSON document: a list of objects, an object that holds it, or columns; or
    JSON Lines that are called .json."""
    text = text_of(path)
    if not text.strip():
        return lined(path, ())
    try:
        value = parsed(text, str(path))
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            try:
                return lined(
                    path,
                    objects(text.split("\n"), path),
                    ["this is one object a line, and is read as JSON Lines"],
                )
            except _NotLines as several:
                if (table := _documents(text, path)) is not None:
                    return table
                raise several.fault from None
        raise DataError(
            f"broken JSON: {error.msg} at character {error.colno}",
            where=f"{path}:{error.lineno}",
            need=_NEED,
            next="repair it, or get the file again; if it has one object a line, name it .jsonl",
        ) from error
    return _rows(value, path, split)


class _NotLines(Exception):
    """The first line is no object by itself: perhaps the file is no JSON Lines at all."""

    def __init__(self, fault: DataError) -> None:
        super().__init__(str(fault))
        self.fault = fault


def is_lines(path: Path) -> bool:
    """Whether a file begins as UTF-8 text with one object a line: then it can be read line by line."""
    try:
        return next(streamed_lines(path), None) is not None
    except (_NotLines, DataError):
        return False


def streamed_lines(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The rows of JSON Lines with the numbers of their lines, one in memory at a time.

    Raises:
        DataError: as `read_lines`.
        OSError: the file cannot be opened.
    """
    with path.open("rb") as file:
        yield from objects((_decoded(line, path) for line in file), path)


def _decoded(line: bytes, path: Path) -> str:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        text_of(path)  # reads the whole file and says what is wrong with it
    return text.removesuffix("\n")


def objects(lines: Iterable[str], path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The objects of lines, each with the number of its line.

    Only "\\n" ends a line of JSONL: str.splitlines would also cut at characters that JSON strings may
    hold.
    """
    begun = False
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = _object(parsed(line.removeprefix("\ufeff"), where), where)
        except json.JSONDecodeError as error:
            fault = DataError(
                f"broken JSON: {error.msg} at character {error.pos + 1}",
                where=where,
                got=excerpt(line),
                need="one JSON object a line",
                next=(
                    "write it with json.dumps: this is how Python prints it"
                    if line.startswith("{'")
                    else "repair or remove this line"
                ),
            )
            raise fault if begun else _NotLines(fault) from error
        except DataError as fault:
            if begun or not line.lstrip().startswith("["):
                raise
            raise _NotLines(fault) from fault
        # Walking through every value would cost as much as reading it, and only these
        # can hold what the walk looks for.
        if "\\u" in line or line.count("[") + line.count("{") > _DEEPEST:
            _check_value(row, where)
        begun = True
        yield number, row


def _whole(text: str, path: Path) -> Any:
    """The one JSON value of the text; None where it is none."""
    try:
        return parsed(text, str(path))
    except json.JSONDecodeError:
        return None


def _documents(text: str, path: Path) -> Table | None:
    """Objects that follow each other with or without line breaks; None where anything
    else stands between them."""
    decoder = json.JSONDecoder()
    values: list[Any] = []
    at = 0
    try:
        while (at := cast(re.Match[str], _SPACE.match(text, at)).end()) < len(text):
            value, at = decoder.raw_decode(text, at)
            if not isinstance(value, dict):
                return None
            values.append(value)
    except (ValueError, RecursionError):
        return None
    return _table(
        values, path, "JSON objects follow each other, not one a line; they are read one by one"
    )


def _rows(value: Any, path: Path, split: str) -> Table:
    """The rows that a JSON document holds: a list of rows, a list under a key, or columns."""
    if isinstance(value, list):
        return _table(cast(list[Any], value), path)
    if isinstance(value, dict):
        held = cast(dict[str, Any], value)
        if (key := _rows_key(held, path, split)) is not None:
            others = [name for name in held if name != key]
            note = (
                f"the rows are those of `{key}`; not used:"
                f" {listed(others[:8])}{', ...' * (len(others) > 8)}"
            )
            return _table(held[key], path, *([note] if others else []))
        if (columns := _by_column(held)) is not None:
            return _table(columns, path, "the file holds columns, not rows; they are read as such")
    raise DataError(
        f"{path} holds no list of rows",
        got=excerpt(json.dumps(value, ensure_ascii=False)),
        need=_NEED,
        next="if the file has one object a line, name it .jsonl",
    )


def _rows_key(held: Mapping[str, Any], path: Path, split: str) -> str | None:
    """The key with the rows: one of the usual names, that of the split, or the only one
    with a list of objects."""
    lists = [name for name, value in held.items() if _objects(value)]
    parts = {name: split_of(name) for name in lists}
    if any(parts.values()):
        chosen = [name for name in lists if parts[name] == split]
        if len(chosen) != 1:
            raise DataError(
                f"{path} has {'no' if not chosen else 'more than one'} {split} list",
                got=listed(lists),
                need="one list of rows for each split",
                next="write each split to a file of its own",
            )
        return chosen[0]
    usual = [name for name in _ROWS_KEYS if name in lists or held.get(name) == []]
    if not usual and len(lists) > 1:
        raise DataError(
            f"{path} has more than one list of rows",
            got=listed(lists),
            need=_NEED,
            next="write the one that is meant to a file of its own",
        )
    return next(iter(usual or lists), None)


def _objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _by_column(held: Mapping[str, Any]) -> list[Any] | None:
    """Rows of {"text": [...], "label": [...]}, and of the ways in which pandas writes a
    frame; None for anything else."""
    if {"columns", "data"} <= held.keys() and all(
        isinstance(held[name], list) for name in ("columns", "data")
    ):
        names = held["columns"]
        whole = all(
            isinstance(row, list) and len(cast(list[Any], row)) == len(names) for row in held["data"]
        )
        return (
            [dict(zip(names, row, strict=True)) for row in held["data"]]
            if whole and _are_names(names)
            else None
        )
    parts = list(held.values())
    if parts and all(isinstance(part, list) for part in parts):
        return _turned(list(held), parts)
    if not parts or not all(isinstance(part, dict) for part in parts):
        return None
    index = list(parts[0])
    if not index or not all(list(part) == index for part in parts):
        return None
    if all(name.isdecimal() for name in held):
        return parts
    return (
        _turned(list(held), [list(part.values()) for part in parts])
        if all(name.isdecimal() for name in index)
        else None
    )


def _turned(names: Sequence[str], columns: Sequence[list[Any]]) -> list[Any] | None:
    if len({len(column) for column in columns}) != 1:
        return None
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _are_names(names: Any) -> bool:
    return all(isinstance(name, str) for name in names) and len(set(names)) == len(names)


def _table(items: Sequence[Any], path: Path, *notes: str) -> Table:
    rows: list[Mapping[str, Any]] = []
    inner = all(
        isinstance(item, dict) and isinstance(item.get("row"), dict) and "row_idx" in item
        for item in items
    )
    for number, item in enumerate(items, start=1):
        where = f"{path}, row {number}"
        _check_value(item, where)
        # What the hub's viewer answers with has each row in a frame of its own.
        rows.append(_object(item["row"] if inner else item, where))
    return numbered(path, rows, notes)


def parsed(text: str, where: str) -> Any:
    """The JSON value in `text`. Broken JSON is left to the caller, who knows the line.

    Raises:
        DataError: a value that JSON allows and Python does not: brackets without end, a
            number of thousands of digits.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except RecursionError as error:
        raise _too_deep(where) from error
    except ValueError as error:
        raise DataError(
            "a number has too many digits", where=where, next="write it as text, in quotes"
        ) from error


def _check_value(value: Any, where: str, depth: int = 0) -> None:
    """Refuse what no tokenizer or file could take later: endless nesting, and lone surrogates."""
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise DataError(
                "a text holds half a character (a lone surrogate)",
                where=where,
                got=excerpt(value),
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
    return DataError(
        f"the brackets are nested deeper than {_DEEPEST}", where=where, next="repair or remove this row"
    )


def _object(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise DataError(
            "this row is not an object",
            where=where,
            got=excerpt(
                str(value)
                if isinstance(value, str | int | float)
                else json.dumps(value, ensure_ascii=False)
            ),
            need='an object with named columns, such as {"text": "..."}',
            next="repair or remove this row",
        )
    return cast(dict[str, Any], value)
