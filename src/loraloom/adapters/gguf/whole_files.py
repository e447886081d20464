"""Files that are written whole or not at all: under another name first, renamed at the end."""

from __future__ import annotations

import errno
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from loraloom.adapters.folder import refuse_full
from loraloom.errors import RequestError


@dataclass(frozen=True)
class Written:
    """A GGUF file that was written.

    Attributes:
        exact: whether llama.cpp computes all of it in float32 where its numbers are. It looks GELU up in
            a table of float16: F32 files of Gemma are off by a mean KL of up to 1e-6.
        notes: what is otherwise than was asked, or than transformers computes.
    """

    path: Path
    kind: str
    bytes: int
    exact: bool
    notes: tuple[str, ...]


@contextmanager
def unfinished_file(out: Path, size: int = 0) -> Generator[Path]:
    """A file beside `out` to write into, renamed to it at the end; nothing is left where that fails.

    Args:
        size: bytes that it will have.

    Raises:
        RequestError: the place is taken, or the disk refuses.
    """
    if out.exists():
        raise RequestError(f"{out} is there already", need="a new file", next="choose another name")
    refuse_full(out, size)
    partial = out.resolve().with_name(f".{out.name}.part")
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.rename(out)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        raise RequestError(
            "the disk is full" if full else "the disk refuses",
            where=str(out),
            got=error.strerror or str(error),
            next="make room, or choose another disk",
        ) from error
    finally:
        partial.unlink(missing_ok=True)
