"""Predictions as they come, kept in a file beside the one that they are for.

`OUT.partial` has one line of JSON with what the predictions were begun with, then one for each row:
its number and what is added to it. A line that a kill left torn, and all behind it, counts as not there.
Only when every row has its line is the file itself written, beside, and renamed: so no moment leaves a
file that looks finished.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from loraloom.errors import RequestError
from loraloom.pipeline.predictor import Added
from loraloom.store.disk import disk
from loraloom.store.lock import Lock

LOT = 4096
"""Rows that are read, sorted by length and answered together. Lines of a lot stand in any order, those
of two lots never mixed: so what is in memory does not grow with the rows."""
SYNC_SECONDS = 1.0
"""What a power cut may cost; a kill costs nothing that was written."""
_ROW = "row"


class Predictions:
    """The file beside `out`.

    Args:
        begun_with: what must be the same when it goes on, each under words for a message.
        resume: go on with what is there.

    Raises:
        RequestError: predictions are there and are not to be gone on with, or were begun with something
            else, or another process writes them.
        StoreError: the disk refuses.
    """

    def __init__(self, out: Path, begun_with: Mapping[str, Any], *, resume: bool) -> None:
        self.path = partial_of(out)
        self.known: dict[int, Added] = {}
        """Of the lot that was begun and not ended: what is added to its rows."""
        self.done = 0
        """Rows that have their line."""
        self._lock = Lock(out.with_name(f".{out.name}.lock"))
        self._synced = time.monotonic()
        with disk(self.path):
            if not self._lock.take():
                raise RequestError(
                    f"another process writes `{out}`",
                    got=f"process {self._lock.holder() or 'unknown'} holds it",
                    next="wait until that one has ended, or end it",
                )
            end = self._read(begun_with, out) if resume and self.path.exists() else 0
            self._file = self.path.open("r+b" if end else "wb")
            self._file.truncate(end)
            self._file.seek(end)
            if not end:
                self._file.write(_line(begun_with))
                self._sync()

    def _read(self, begun_with: Mapping[str, Any], out: Path) -> int:
        """Take in the lines that are there; where the last whole one ends."""
        with self.path.open("rb") as file:
            first = _object(file.readline())
            if first is None:
                return 0
            _refuse_changes(first, begun_with, out)
            end = file.tell()
            for line in file:
                entry = _object(line)
                number = entry.pop(_ROW, None) if entry is not None else None
                if entry is None or not isinstance(number, int) or number in self.known:
                    break
                if number // LOT != self.done // LOT:
                    break
                self.known[number] = entry
                self.done += 1
                end += len(line)
                if self.done % LOT == 0:
                    self.known.clear()
        return end

    def add(self, found: Iterable[tuple[int, Added]]) -> None:
        """Keep what is added to rows, by their numbers; those that are known already are passed over."""
        new = [(number, added) for number, added in found if number not in self.known]
        with disk(self.path):
            self._file.writelines(_line({_ROW: number, **added}) for number, added in new)
            self._file.flush()
            if time.monotonic() - self._synced > SYNC_SECONDS:
                self._sync()
        self.done += len(new)

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def lots(self) -> Iterator[list[Added]]:
        """What is added to the rows, in their order, lot by lot."""
        with disk(self.path), self.path.open("rb") as file:
            file.readline()
            found: dict[int, Added] = {}
            for line in file:
                entry = json.loads(line)
                found[entry.pop(_ROW)] = entry
                if len(found) == LOT:
                    yield [found[number] for number in sorted(found)]
                    found = {}
            if found:
                yield [found[number] for number in sorted(found)]

    def __enter__(self) -> Predictions:
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the file; it stays unless it was removed."""
        with disk(self.path):
            self._sync()
            self._file.close()
        self._lock.release()

    def remove(self) -> None:
        """Remove the file: the rows stand in their own now."""
        self._lock.path.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)


def partial_of(out: Path) -> Path:
    """Where predictions for `out` are kept until all are there."""
    return out.with_name(f"{out.name}.partial")


def _line(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=True, sort_keys=False) + "\n").encode()


def _object(line: bytes) -> dict[str, Any] | None:
    """What a whole line says; None for a torn one."""
    if not line.endswith(b"\n"):
        return None
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return cast("dict[str, Any]", found) if isinstance(found, dict) else None


def _refuse_changes(before: Mapping[str, Any], now: Mapping[str, Any], out: Path) -> None:
    changed = [name for name in now if before.get(name) != now[name]]
    if changed:
        raise RequestError(
            f"the predictions in `{partial_of(out)}` were begun with something else",
            got=f"other than then: {', '.join(changed)}",
            need="the same rows, adapter, base and settings",
            next=f"put them back as they were, or begin anew: rm '{partial_of(out)}'",
        )
