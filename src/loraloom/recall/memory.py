"""The folder of a memory: which base it belongs to, its journal, and the adapters that answer.

    memory.json          the base, by name and by fingerprint of its weights
    journal.jsonl        everything that happened; what counts is what stands there
    anchors.json         texts that the bare base wrote: what it should still write
    keys.safetensors     hidden states of stored questions, by which they are found
    generations/0003/    fast/ and slow/, adapters in PEFT's format
    report.html          the page of `recall report`

A new generation of adapters is written beside the old one and renamed into place; it counts once the
journal says so. Whatever ends a process, and wherever, the memory is the one before or the one after.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from loraloom.errors import ModelError, RequestError, StoreError
from loraloom.recall.journal import Journal, as_it_was, now
from loraloom.recall.state import Entry, State, replayed
from loraloom.store.disk import sync_folder, write_whole
from loraloom.store.lock import Lock
from loraloom.store.to_json import to_json

SCHEMA_VERSION = 1
ABOUT, JOURNAL, GENERATIONS = "memory.json", "journal.jsonl", "generations"
PAGE = "report.html"
KEPT_GENERATIONS = 2
"""On disk: the one that answers and the one before it, for whoever cuts the journal's last line off."""
Part = Literal["fast", "slow"]
PARTS: tuple[Part, ...] = ("slow", "fast")


@dataclass(frozen=True)
class BaseOf:
    """The base that a memory belongs to."""

    name_or_path: str
    fingerprint: str


class Memory:
    """A memory that is open.

    Attributes:
        state: what the journal says; up to date after each `record`.
        notes: what a person should know of how the folder was found.
    """

    def __init__(self, folder: Path, base: BaseOf, journal: Journal) -> None:
        self.folder, self.base, self.journal = folder, base, journal
        self.state: State = replayed(journal.records)
        self.notes: list[str] = []
        if journal.torn:
            self.notes.append(
                f"the last {journal.torn:,} bytes of the journal are half a line, left by a crash:"
                " what it was about was never written"
            )

    def record(self, record: Mapping[str, Any]) -> None:
        """Add a line to the journal: what it says has happened when this returns."""
        self.journal.append(record)
        self.state = replayed(self.journal.records)

    def entry(self, name: str) -> Entry:
        """The item of this id.

        Raises:
            RequestError: there is none.
        """
        found = self.state.entries.get(name)
        if found is None:
            last = next(reversed(self.state.entries), None)
            raise RequestError(
                f"no item `{name}` in this memory",
                where=str(self.folder),
                got=f"{len(self.state.entries):,} items, the last one {last}" if last else "no items",
                next=f"loraloom recall report {self.folder} lists them",
            )
        return found

    # -- adapters ---------------------------------------------------------------------------------------

    def part(self, part: Part) -> Path | None:
        """Folder of an adapter of the generation that answers; None where it has none.

        Raises:
            StoreError: the generation that the journal speaks of is gone.
        """
        if not self.state.generation:
            return None
        folder = self._generation(self.state.generation)
        if not folder.is_dir():
            raise StoreError(
                f"the adapters of generation {self.state.generation} are gone",
                where=str(folder),
                need="the folder, as the journal's last training left it",
                next=f"loraloom recall learn {self.folder} --rebuild trains them anew from the journal",
            )
        return folder / part if (folder / part).is_dir() else None

    def commit(self, write: Mapping[Part, Callable[[Path], None]], record: Mapping[str, Any]) -> None:
        """Keep a new generation of adapters, and say so in the journal: both or neither.

        Args:
            write: what writes each adapter into an empty folder; an adapter that is left out is none.

        Raises:
            StoreError: the disk refused; the generation before still answers.
        """
        number = self.state.generation + 1
        final = self._generation(number)
        partial = final.with_name(f".{final.name}.part")
        with as_it_was(self.folder):
            for left in (partial, final):  # of a command that was killed before the journal's line
                shutil.rmtree(left, ignore_errors=True)
            partial.mkdir(parents=True)
            try:
                for part, write_part in write.items():
                    write_part(partial / part)
                _sync(partial)
                sizes = {part: _bytes(partial / part) for part in write}
                partial.rename(final)
                sync_folder(final.parent)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
        self.record({**record, "generation": number, "bytes": sizes})
        self._drop_old()

    def _generation(self, number: int) -> Path:
        return self.folder / GENERATIONS / f"{number:04d}"

    def drop_page(self) -> None:
        """Remove the page of the last report, which shows what is about to be forgotten."""
        with as_it_was(self.folder / PAGE):
            (self.folder / PAGE).unlink(missing_ok=True)

    def tidy(self) -> None:
        """Remove what a command left that was killed: half-written files, and adapters that the journal
        does not speak of. For whoever holds the lock."""
        with suppress(OSError):  # what cannot be removed does no harm
            for partial in self.folder.glob(".*.part"):
                partial.unlink()
            self._drop_old()

    def _drop_old(self) -> None:
        for folder in (self.folder / GENERATIONS).glob("*"):
            number = int(folder.name) if folder.name.isdigit() else -1
            if not self.state.generation - KEPT_GENERATIONS < number <= self.state.generation:
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def opened(folder: Path, base: BaseOf | None = None, *, writes: bool = False) -> Generator[Memory]:
    """A memory, for as long as it is needed.

    Args:
        base: what a memory that is not there yet is made for, and one that is has to belong to.
        writes: nobody else may write to it meanwhile.

    Raises:
        RequestError: there is no memory, it is another base's, or another process writes to it.
    """
    if not (folder / ABOUT).is_file():
        if base is None:
            raise RequestError(
                f"no memory in `{folder}`",
                need=f"a folder with {ABOUT}",
                next=f"loraloom recall write {folder} --model BASE --data items.jsonl makes one",
            )
        _make(folder, base)
    known = _about(folder)
    if base is not None and base.fingerprint != known.fingerprint:
        raise ModelError(
            "this memory belongs to another base",
            where=str(folder),
            got=f"{base.name_or_path}, fingerprint {base.fingerprint}",
            need=f"{known.name_or_path}, fingerprint {known.fingerprint}",
            next="give that one, or write into a memory of its own: another folder",
        )
    lock = Lock(folder / "lock")
    if writes:
        with as_it_was(folder):
            taken = lock.take()
        if not taken:
            raise RequestError(
                "another process writes to this memory",
                where=str(folder),
                got=f"process {lock.holder()}",
                next="wait until it has ended",
            )
    try:
        memory = Memory(folder, known, Journal(folder / JOURNAL))
        if writes:
            memory.journal.cut()
            memory.tidy()
        yield memory
    finally:
        lock.release()


def _make(folder: Path, base: BaseOf) -> None:
    taken = folder.is_dir() and any(path.suffix != ".part" for path in folder.iterdir())
    if folder.is_file() or taken:
        raise RequestError(
            f"`{folder}` is there and is no memory", need="a folder of its own", next="give another one"
        )
    about = {
        "schema_version": SCHEMA_VERSION,
        "base": {"name_or_path": base.name_or_path, "fingerprint": base.fingerprint},
        "created": now(),
    }
    with as_it_was(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / ABOUT, to_json(about, indent=2) + b"\n")


def _about(folder: Path) -> BaseOf:
    path = folder / ABOUT
    try:
        base = json.loads(path.read_bytes())["base"]
        return BaseOf(str(base["name_or_path"]), str(base["fingerprint"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RequestError(
            "this is not a memory's description",
            where=str(path),
            got=f"{type(error).__name__}: {error}",
            next="restore the file; the journal beside it was not touched",
        ) from error


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _sync(folder: Path) -> None:
    """Bring all files below a folder, and their names, to the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        else:
            sync_folder(path)
    sync_folder(folder)
