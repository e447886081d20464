"""A file that one process holds: the operating system lets go of it when that process
ends, however it ends."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows: there two processes on one run are the user's own care
    fcntl = None


class Lock:
    """A lock on a file, held from `take` to `release` or to the end of the process.

    The file holds the number of the process, for messages.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[str] | None = None

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
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                return False
            except OSError:
                # A network drive without locks: better no lock than no run.
                pass
        file.seek(0)
        file.truncate()
        file.write(f"{os.getpid()}\n")
        file.flush()
        self._file = file
        return True

    def holder(self) -> str:
        """The number of the process that took it last, or ""."""
        with suppress(OSError):
            return self.path.read_text().strip()
        return ""

    def release(self) -> None:
        """Let go; a lock that is not held stays so."""
        if self._file is not None:
            self._file.close()
            self._file = None
