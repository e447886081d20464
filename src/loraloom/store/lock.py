"""A file that one process holds: the operating system lets go of it when that process
ends, however it ends."""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from loraloom.store.names import this_host

try:
    import fcntl
except ImportError:  # Windows: there two processes on one run are the user's own care
    fcntl = None

TRIES = 3
"""How often a lock is asked for: whoever looks whether it is taken has it for a moment."""
PAUSE_SECONDS = 0.02
LOOK_SECONDS = 1.0
"""How often a process that holds a lock looks whether it still does."""


class Lock:
    """A lock on a file, held from `take` to `release` or to the end of the process.

    The file names process and machine, for messages.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[str] | None = None
        self._held_by = ""
        self._looked = 0.0
        self._lost = False

    def take(self) -> bool:
        """Hold the lock (its folder is made if needed); False where another process, or
        another Lock, has it.

        Raises:
            OSError: the file cannot be written.
        """
        if self._file is not None:
            return True
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = self.path.open("a+")
        # A network drive without locks: better no lock than no run.
        if _flock(file) is False:
            file.close()
            return False
        file.seek(0)
        file.truncate()
        self._held_by = f"{os.getpid()} on {this_host()}"
        file.write(f"{self._held_by}\n")
        file.flush()
        self._file, self._looked, self._lost = file, time.monotonic(), False
        return True

    def is_lost(self) -> bool:
        """Whether it was held and another process has taken it since, as far as was seen
        `LOOK_SECONDS` ago.

        A server of files lets go of the locks of a machine that it does not hear of for a while: the
        machine may come back after another has gone on with its work.
        """
        now = time.monotonic()
        if self._file is not None and not self._lost and now > self._looked + LOOK_SECONDS:
            self._looked, self._lost = now, self.holder() != self._held_by
        return self._lost

    def is_taken(self) -> bool:
        """Whether somebody has it. Where the system has no locks: whether anybody ever took it."""
        if self._file is not None:
            return True
        try:
            with self.path.open("r+") as file:
                return _flock(file, tries=1) is not True
        except OSError:
            return False

    def holder(self) -> str:
        """The process that took it last, "NUMBER on MACHINE", or ""."""
        with suppress(OSError):
            return self.path.read_text().strip()
        return ""

    def release(self) -> None:
        """Let go; a lock that is not held stays so."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _flock(file: IO[str], tries: int = TRIES) -> bool | None:
    """Lock an open file until it is closed: whether that worked; None where there are no locks."""
    if fcntl is None:
        return None
    for attempt in range(tries):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(PAUSE_SECONDS * (attempt + 1 < tries))
        except OSError:
            return None
        else:
            return True
    return False


@contextmanager
def exclusively(handle: int) -> Generator[None]:
    """Within it no other process is in the same place with the same file, where the system has locks."""
    if fcntl is None:
        yield
        return
    with suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield
    finally:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_UN)
