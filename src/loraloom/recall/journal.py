"""The journal: all that ever happened to a memory, one line each, never changed, only added to.

It is the ground truth. Replay takes its items, an audit its words, and what a memory holds is what its
lines say in order. Each line carries its number and a checksum, and is on the disk before the next
thing is done.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from loraloom.errors import StoreError
from loraloom.store.to_json import to_json

CLOSING = b',"crc32":"%08x"}'
CLOSING_BYTES = len(CLOSING % 0)


def now() -> str:
    """ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Journal:
    """Lines of one file.

    Attributes:
        records: every whole line in its order.
        torn: bytes after the last whole line, which a crash in the middle of a write left.

    Raises:
        StoreError: a line that is not the last one is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        content = path.read_bytes() if path.exists() else b""
        self.records, self._size = _read(content, path)
        self.torn = len(content) - self._size

    def cut(self) -> None:
        """Take off what a crash left behind the last whole line: it was never said to be written."""
        if self.torn:
            with as_it_was(self.path):
                self._cut_to(self._size)
            self.torn = 0

    def append(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Add one line, whole or not at all; it is on the disk when this returns.

        Raises:
            StoreError: the disk refused; the journal is as it was.
        """
        self.cut()
        body = {"n": len(self.records) + 1, "at": now(), **record}
        text = to_json(body)[:-1]
        line = text + CLOSING % zlib.crc32(text) + b"\n"
        with as_it_was(self.path):
            try:
                with self.path.open("ab") as file:
                    file.write(line)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError:
                self._cut_to(self._size)
                raise
        self._size += len(line)
        read = cast(dict[str, Any], json.loads(text + b"}"))
        self.records.append(read)
        return read

    def _cut_to(self, size: int) -> None:
        if self.path.exists():
            with self.path.open("r+b") as file:
                file.truncate(size)
                os.fsync(file.fileno())


def _read(content: bytes, path: Path) -> tuple[list[dict[str, Any]], int]:
    """Whole lines, and the bytes that they take."""
    records: list[dict[str, Any]] = []
    size = 0
    lines = content.split(b"\n")
    for number, line in enumerate(lines):
        record = _record(line)
        if record is None and not any(_record(later) for later in lines[number + 1 :]):
            break  # the end of the file, or what a crash left of its last line
        if record is None or record.get("n") != len(records) + 1:
            raise StoreError(
                f"line {number + 1} of the journal is damaged, or lines before it are gone",
                where=str(path),
                need="the journal as it was written",
                next="restore the file from a copy; nothing was changed",
            )
        if number == len(lines) - 1:
            break  # its end is missing, so it may not be on the disk whole
        records.append(record)
        size += len(line) + 1
    return records, size


def _record(line: bytes) -> dict[str, Any] | None:
    text = line[:-CLOSING_BYTES]
    if not text or line[-CLOSING_BYTES:] != CLOSING % zlib.crc32(text):
        return None
    return cast(dict[str, Any], json.loads(text + b"}"))


@contextmanager
def as_it_was(path: Path) -> Generator[None]:
    """What the disk refuses, as an error that says that the memory is as it was."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            "the disk refused, and the memory is as it was",
            where=str(path),
            got=error.strerror or str(error),
            next="make room, or see who may write there, and give the command again",
        ) from error
