"""Folders that are written whole or not at all: under another name first, renamed at the end."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from loraloom.errors import RequestError
from loraloom.store.disk import free_bytes


def refuse_taken(out: Path) -> None:
    """Raises RequestError where a new folder cannot be."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RequestError(f"{out} is there already", need="a new folder", next="--out ANOTHER_FOLDER")


def refuse_full(out: Path, size: int) -> None:
    """Raises RequestError where the disk of `out` has no room for so many bytes."""
    free = free_bytes(out)
    if free < size:
        raise RequestError(
            "the disk has no room for it",
            where=str(out),
            got=f"{free / 2**20:,.0f} MiB free",
            need=f"{size / 2**20:,.0f} MiB",
            next="make room, or choose another disk: --out FOLDER",
        )


@contextmanager
def unfinished(out: Path) -> Generator[Path]:
    """A folder beside `out` to write into; nothing is left of it where that fails.

    Raises:
        RequestError: the disk refuses.
    """
    place = out.resolve()
    partial = place.with_name(f".{place.name}.part")
    shutil.rmtree(partial, ignore_errors=True)  # of a command that was killed
    try:
        partial.mkdir(parents=True)
        yield partial
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        raise RequestError(
            "the disk is full" if full else "the disk refuses",
            where=str(out),
            got=error.strerror or str(error),
            next="make room, or choose another disk: --out FOLDER",
        ) from error
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def finish(partial: Path, out: Path) -> Path:
    """Rename a written folder to its place."""
    if out.is_dir():
        out.rmdir()  # `refuse_taken` found it empty
    return partial.rename(out)


def reject(partial: Path, out: Path) -> Path:
    """Rename a written folder that failed its proof, so that nobody takes it for the artefact."""
    out = out.resolve()
    place = out.with_name(f"{out.name}.rejected")
    number = 2
    while place.exists():
        place = out.with_name(f"{out.name}.rejected-{number}")
        number += 1
    return partial.rename(place)
