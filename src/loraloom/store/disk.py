"""The disk under a run: files are written whole or not at all, and errors say what to do."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from loraloom.errors import StoreError

OUT_OF_REACH = (errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN)
"""How a network share says that it is not there now."""


@contextmanager
def disk(path: Path) -> Generator[None]:
    """Turn what the operating system refuses into a StoreError that says what to do."""
    try:
        yield
    except OSError as error:
        raise refusal(error, path) from error


def refusal(error: OSError, path: Path) -> StoreError:
    """What the operating system refused at `path`, with what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        what = "the disk is full"
        advice = "make room and go on with --resume; what was written so far is kept"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        what = "writing is not allowed here"
        advice = "choose a folder that you may write to: --output-dir FOLDER"
    elif error.errno == errno.ENOENT:
        what = "the folder is gone"
        advice = (
            "was it moved or deleted, or is its share not mounted any more? bring it back and go on"
            " with --resume, or start the run again"
        )
    elif error.errno in OUT_OF_REACH:
        what = "the disk is out of reach"
        advice = "bring it back and go on with --resume; what was written so far is kept"
    else:
        what = "the disk refused"
        advice = "check the disk and go on with --resume, or choose another one: --output-dir FOLDER"
    return StoreError(what, where=str(path), got=error.strerror or str(error), next=advice)


def free_bytes(path: str | Path) -> int:
    """Bytes that are free on the disk under `path`, which need not exist yet.

    Raises:
        StoreError: the disk does not say.
    """
    place = Path(path).absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    with disk(place):
        return shutil.disk_usage(place).free


def require_space(path: str | Path, needed_bytes: int) -> None:
    """Check that the disk under `path` (which need not exist yet) has `needed_bytes` free.

    Raises:
        StoreError: it has less.
    """
    free = free_bytes(path)
    if free < needed_bytes:
        raise StoreError(
            f"not enough free space for `{path}`",
            got=f"{_gib(free)} free",
            need=_gib(needed_bytes),
            next="make room, or choose another disk: --output-dir FOLDER",
        )


def write_atomically(path: Path, content: bytes) -> None:
    """Write a temporary file beside `path`, bring it to the disk, and rename it over `path`.

    Raises:
        StoreError: the disk refuses; the old file is then untouched.
    """
    with disk(path):
        write_whole(path, content)


def write_whole(path: Path, content: bytes) -> None:
    """The same, for callers with advice of their own.

    Raises:
        OSError: the disk refuses; the old file is then untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_bytes(content)
        put_in_place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def put_in_place(partial: Path, path: Path) -> None:
    """Bring a file that was just written to the disk and rename it over `path`: a crash
    leaves the old file or the new one.

    Raises:
        OSError: the disk refuses.
    """
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Bring names of files to the disk, where the system can."""
    # Windows opens no folders, and some network drives sync none: the rename itself is
    # then all there is.
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**29 else f"{count / 2**20:.1f} MiB"
