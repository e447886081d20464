"""A file that only grows, one JSON object a line, and can be cut back to any place that was marked."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from loraloom.store.disk import disk


@dataclass(frozen=True)
class Mark:
    """A place in a file: how many bytes stand before it, and their checksum."""

    size: int = 0
    crc32: int = 0


class Lines:
    """Lines of one file. Writing raises StoreError where the disk refuses."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._end: Mark | None = None
        """None until the file's end was looked at, and after a write that may have been torn."""

    def append(self, line: bytes) -> None:
        """Add one line (given without its end). It is with the operating system when this returns."""
        with disk(self.path):
            end = self._look()
            # Whatever ends the write early leaves half a line: the next one must look again.
            self._end = None
            with self.path.open("ab") as file:
                file.write(line + b"\n")
            self._end = Mark(end.size + len(line) + 1, zlib.crc32(line + b"\n", end.crc32))

    def __iter__(self) -> Iterator[bytes]:
        """Every line in order, also one that a crash left torn."""
        if self.path.exists():
            with self.path.open("rb") as file:
                yield from file

    def mark(self) -> Mark:
        """Where the file ends now; all before it is on the disk when this returns."""
        with disk(self.path):
            end = self._look()
            if self.path.exists():
                with self.path.open("rb") as file:
                    os.fsync(file.fileno())
            return end

    def holds(self, mark: Mark) -> bool:
        """Whether the file still begins with what stood before `mark`."""
        content = self.path.read_bytes()[: mark.size] if self.path.exists() else b""
        return mark == Mark(len(content), zlib.crc32(content))

    def cut(self, mark: Mark) -> None:
        """Forget all that was written after `mark`."""
        with disk(self.path):
            if self.path.exists():
                with self.path.open("r+b") as file:
                    file.truncate(mark.size)
                    os.fsync(file.fileno())
            self._end = mark

    def _look(self) -> Mark:
        """The end of the file, which is made to be the end of a line: the next one must
        not join a torn one."""
        if self._end is not None:
            return self._end
        content = self.path.read_bytes() if self.path.exists() else b""
        end = content.rfind(b"\n") + 1
        if end < len(content):
            whole = _is_json(content[end:])
            content = content + b"\n" if whole else content[:end]
            with self.path.open("r+b") as file:
                file.truncate(len(content) - whole)
                file.seek(0, os.SEEK_END)
                file.write(b"\n" * whole)
        return Mark(len(content), zlib.crc32(content))


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
