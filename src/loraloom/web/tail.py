"""A file that grows, read in pieces: pure, so that every way to cut it can be tried.

A place is an offset with the checksum of all that stands before it. A resume cuts events.jsonl, and what
grows there after that must not pass for what a reader has seen: then the checksum is another.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass

BATCH_BYTES = 256 * 1024
"""Of one reading, but for a line that is longer."""
_PLACE = re.compile(r"([0-9a-f]{8})-([0-9]{1,18})")

Read = Callable[[int, int], bytes]
"""Bytes of the file from an offset, at most so many: fewer only where it ends."""


@dataclass(frozen=True)
class Place:
    """How far a file was read: after whole lines only."""

    offset: int = 0
    crc32: int = 0

    def __str__(self) -> str:
        """As the id of a message: "0a1b2c3d-4711"."""
        return f"{self.crc32:08x}-{self.offset}"

    def after(self, content: bytes) -> Place:
        """The place behind `content`, which stands here."""
        return Place(self.offset + len(content), zlib.crc32(content, self.crc32))


def place_of(text: str | None) -> Place | None:
    """The place that was written so; None where it is none."""
    found = _PLACE.fullmatch(text or "")
    return Place(int(found[2]), int(found[1], 16)) if found else None


def whole_lines(read: Read, place: Place, most: int = BATCH_BYTES) -> tuple[list[bytes], Place]:
    """The whole lines from `place` on, without their ends, and the place behind them.

    A last line without its end is left for the next time: it is still being written.
    """
    content = read(place.offset, most)
    size = len(content)
    while b"\n" not in content and size == most:
        most *= 2
        content = read(place.offset, most)
        size = len(content)
    content = content[: content.rfind(b"\n") + 1]
    return content.split(b"\n")[:-1], place.after(content)


def holds(read: Read, place: Place) -> bool:
    """Whether the file still begins with what stood before `place`."""
    here = Place()
    while here.offset < place.offset:
        content = read(here.offset, min(BATCH_BYTES, place.offset - here.offset))
        if not content:
            return False
        here = here.after(content)
    return here == place
