"""CSV, TSV and the like: which separator a file uses, where its rows begin, and which
quotation marks quote a field."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from loraloom.data.contents import text_of
from loraloom.data.table import Table, counted, excerpt, lined, listed, repeats
from loraloom.errors import DataError

_SEPARATORS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a vertical bar"}
_LOOKED_AT = 50
"""Rows on which a separator is tried."""
_SAID = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
"""The line that Excel writes above a header."""
_QUOTED = re.compile(r'"((?:[^"]|"")*)"')
_INDEX = re.compile(r"|Unnamed: 0(\.\d+)?")
"""What pandas calls the column that it writes for its index."""


def separated(usual: str) -> Callable[[Path], Table]:
    """A reader of files whose ending promises this separator. Another one that all rows
    agree on is used, with a note."""

    def read(path: Path) -> Table:
        csv.field_size_limit(2**31 - 1)
        # "\n", "\r\n" and "\r" end a line, as the csv module has it; it is given lines with their ends.
        lines = list(io.StringIO(text_of(path), newline=""))
        first, separator = _start(lines, usual, path)
        notes: list[str] = []
        if separator != usual:
            notes.append(
                f"the columns are separated by {_SEPARATORS.get(separator, separator)}, and are read so"
            )
        records = _Records(lines, separator, str(path))
        header, rows = _laid_out(records.read(first), notes, str(path), separator)
        numbered = [(number, dict(zip(header, fields, strict=True))) for number, fields in rows]
        return lined(path, numbered, (*notes, *records.notes()))

    return read


def _start(lines: Sequence[str], usual: str, path: Path) -> tuple[int, str]:
    """Index of the header's line, and the separator: as Excel says it, the usual one,
    or one that all rows agree in."""
    first = next(
        (number for number, line in enumerate(lines) if line.strip("\ufeff \t\r\n,;|")), len(lines)
    )
    if first == len(lines):
        return first, usual
    if said := _SAID.fullmatch(lines[first]):
        return first + 1, said[1]
    for separator in (usual, *(each for each in _SEPARATORS if each != usual)):
        if _columns(lines, first, separator, str(path)) > 1:
            return first, separator
    return first, usual


def _columns(lines: Sequence[str], first: int, separator: str, where: str) -> int:
    """How many columns there are if this separates them; 0 where one row in ten does not agree."""
    if separator not in lines[first]:
        return 1
    try:
        widths = [
            len(fields)
            for _, fields in islice(_Records(lines, separator, where).read(first), _LOOKED_AT)
        ]
    except DataError:
        return 0
    return widths[0] if widths.count(widths[0]) > 0.9 * len(widths) else 0


@dataclass
class _Records:
    """The rows of separated lines, one after the other.

    A mark at the start of a field quotes it. In a table of tabs such marks are common as plain text, so
    there one quotes only a field that is closed on its own line, or whose line would be no whole row
    without it.
    """

    lines: Sequence[str]
    separator: str
    where: str
    width: int = 0
    """Fields of the header."""
    open_marks: list[int] = field(default_factory=list[int])
    """Lines with a mark that was read as text."""
    spans: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    """First and last lines of rows that a quoted field makes longer than a line."""

    def read(self, first: int) -> Iterator[tuple[int, list[str]]]:
        """1-based line number and fields of every row from line index `first` on; the
        header is the first of them."""
        at = first
        while at < len(self.lines):
            line = self.lines[at].rstrip("\r\n")
            if not line:
                at += 1
                continue
            fields, used = (line.split(self.separator), 1) if '"' not in line else self._quoted(at, line)
            self.width = self.width or len(fields)
            if used > 1:
                self.spans.append((at + 1, at + used))
            yield at + 1, fields
            at += used

    def _quoted(self, at: int, line: str) -> tuple[list[str], int]:
        """The fields of a row with quotation marks in it, and how many lines it takes."""
        try:
            return next(self._reader(at, at + 1)), 1
        except csv.Error:
            pass
        # The line alone is no row. In a table of tabs the mark may be plain text; it is, where this line
        # and the next one both have the right number of fields without it.
        as_text = self._as_text(line)
        if self.separator == "\t" and self._whole(at) and self._whole(at + 1):
            self.open_marks.append(at + 1)
            return as_text, 1
        # Otherwise the quoted field goes on over the next lines.
        reader = self._reader(at, len(self.lines))
        fault: csv.Error | None = None
        fields: list[str] = []
        try:
            fields = next(reader)
        except csv.Error as error:
            fault = error
        # Not a whole row: then the mark was text after all, if the line alone is one.
        if self.separator == "\t" and self._whole(at) and len(fields) != self.width:
            self.open_marks.append(at + 1)
            return as_text, 1
        if fault:
            raise self._broken(at, reader.line_num, fault) from fault
        return fields, reader.line_num

    def _reader(self, first: int, end: int) -> Any:
        # by their places: `islice` would go through all lines before `first` for every row
        lines = map(self.lines.__getitem__, range(first, end))
        return csv.reader(lines, delimiter=self.separator, strict=True)

    def _as_text(self, line: str) -> list[str]:
        """Fields where only a pair of marks around a whole field quotes it."""
        return [
            pair[1].replace('""', '"') if (pair := _QUOTED.fullmatch(field)) else field
            for field in line.split(self.separator)
        ]

    def _whole(self, at: int) -> bool:
        """Whether the line is a row by itself, marks or not; so is the end of the file."""
        line = self.lines[at].rstrip("\r\n") if at < len(self.lines) else ""
        return not line or line.count(self.separator) + 1 == self.width

    def _broken(self, at: int, used: int, error: csv.Error) -> DataError:
        last = at + used
        if at + used >= len(self.lines) and str(error) == "unexpected end of data":
            inside = False
            for number in range(at, last):
                marks = self.lines[number].replace('""', "").count('"')
                inside ^= marks % 2 == 1
                at = number if inside and marks else at
            what = "a quotation mark opens a field here and nothing closes it"
        elif used > 1:
            what = (
                f"broken row: a quotation mark opens a field here, and in line {last} text follows the"
                " one that closes it"
            )
        else:
            what = f"broken row: {error}"
        return DataError(
            what,
            where=f"{self.where}:{at + 1}",
            got=excerpt(self.lines[at].rstrip("\r\n")),
            need='"..." around the whole field, with "" for each mark inside',
            next="check the quotes around this row",
        )

    def notes(self) -> Iterator[str]:
        """How the quotation marks were read, where it was not plain."""
        if self.open_marks:
            yield (
                "a quotation mark that is not closed on its line was read as text in"
                f" {counted(len(self.open_marks), 'row')} (first in line {self.open_marks[0]})"
            )
        if self.spans:
            first, last = self.spans[0]
            longest = max(self.spans, key=lambda span: span[1] - span[0])
            further = (
                ""
                if longest == (first, last)
                else f", the longest in lines {longest[0]} to {longest[1]}"
            )
            yield (
                f"quotation marks make {counted(len(self.spans), 'row')} longer than a line (first in"
                f" lines {first} to {last}{further})"
            )
        swallowed = [
            span
            for span in self.spans
            if self.width > 1 and all(map(self._whole, range(span[0] - 1, span[1])))
        ]
        if swallowed:
            first, last = swallowed[0]
            yield (
                f"lines {first} to {last} became one row, though each of them would be a row without the"
                " quotation mark in line "
                f'{first}: if it is text, write """ for it and close the field'
            )


def _laid_out(
    records: Iterator[tuple[int, list[str]]], notes: list[str], where: str, separator: str
) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Header and rows of one width, without columns that have no name and hold nothing;
    what was left out is noted.

    Raises:
        DataError: a row of another width, a name that stands twice, or a column with
            values and without a name.
    """
    line, header = next(records, (1, list[str]()))
    if not header:
        return [], []
    names = [name.strip("\ufeff \t\r\n") for name in header]
    named = max((number + 1 for number, name in enumerate(names) if name), default=0)
    _check_names(names, f"{where}:{line}")
    rows: list[tuple[int, list[str]]] = []
    longer = headers = 0
    for number, fields in records:
        if len(fields) > len(names) and not any(field.strip() for field in fields[len(names) :]):
            longer += 1
            del fields[len(names) :]
        if not named <= len(fields) <= len(names):
            raise _other_width(fields, names, f"{where}:{number}", separator)
        if len(names) > 1 and fields == header:
            headers += 1
            continue
        rows.append((number, fields + [""] * (len(names) - len(fields))))
    if longer:
        notes.append(
            f"{counted(longer, 'row')} with more separators than the header, and nothing between them"
        )
    if headers:
        notes.append(f"the header appears {headers + 1} times, and is never read as a row")
    if _is_index(names, rows):
        said = f"is called `{names[0]}`" if names[0] else "has no name"
        notes.append(
            f"the first column {said} and numbers the rows, as pandas writes its index: it is left out"
        )
        names, rows = names[1:], [(number, fields[1:]) for number, fields in rows]
    if not all(names):
        names, rows = _without_nameless(names, rows, notes, where)
    return names, rows


def _check_names(names: Sequence[str], where: str) -> None:
    if repeated := repeats(name for name in names if name):
        raise DataError(
            f"the header repeats {listed(repeated)}",
            where=where,
            got=listed(names),
            need="one name a column",
            next="rename it",
        )


def _other_width(fields: Sequence[str], names: Sequence[str], where: str, separator: str) -> DataError:
    return DataError(
        f"this row has {len(fields)} fields, the header has {len(names)}",
        where=where,
        got=excerpt(separator.join(fields)),
        need=f"the columns {listed(names)}",
        next="quote fields that hold the separator or a line break",
    )


def _is_index(names: Sequence[str], rows: Sequence[tuple[int, list[str]]]) -> bool:
    if len(names) < 2 or not rows or not _INDEX.fullmatch(names[0]):
        return False
    numbers = [fields[0] for _, fields in rows]
    # Labels without a name are numbers too, but few different ones.
    return all(number.isdecimal() for number in numbers) and (
        bool(names[0]) or 2 * len(set(numbers)) > len(numbers)
    )


def _without_nameless(
    names: list[str], rows: list[tuple[int, list[str]]], notes: list[str], where: str
) -> tuple[list[str], list[tuple[int, list[str]]]]:
    nameless = [number for number, name in enumerate(names) if not name]
    for number, fields in rows:
        filled = next((column for column in nameless if fields[column].strip()), None)
        if filled is not None:
            raise DataError(
                f"column {filled + 1} has no name in the header, and a value here",
                where=f"{where}:{number}",
                got=excerpt(fields[filled].strip()),
                need="a name for every column that holds something",
                next="name it in the header, or remove it",
            )
    notes.append(f"{counted(len(nameless), 'column')} without a name or a value left out")
    kept = [number for number, name in enumerate(names) if name]
    return [names[i] for i in kept], [(number, [fields[i] for i in kept]) for number, fields in rows]
