"""A command in a terminal of 80 columns, and a person before it."""

from __future__ import annotations

import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from fcntl import ioctl
from types import TracebackType

PATIENCE = 240.0
"""Seconds, on a busy machine, for whatever is waited for."""


class Terminal:
    """Runs `loraloom WORDS` in a pseudo-terminal; `screen` is all that it has shown."""

    def __init__(self, *words: object) -> None:
        command = [sys.executable, "-m", "loraloom", *map(str, words)]
        self.screen = ""
        self._seen = 0
        self.pid, self._handle = pty.fork()
        if not self.pid:
            # A shell that starts tests in the background has them ignore Ctrl-C; a terminal's do not.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.environ |= {"TERM": "dumb", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
            os.execv(command[0], command)
        ioctl(self._handle, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        os.close(self._handle)

    def wait(self, text: str) -> str:
        """What is shown until `text` is, since the last wait."""
        end = time.monotonic() + PATIENCE
        while text not in self.screen[self._seen :]:
            assert self._read(end), f"no {text!r} in:\n{self.screen}"
        place = self.screen.index(text, self._seen) + len(text)
        shown, self._seen = self.screen[self._seen : place], place
        return shown

    def type(self, keys: str) -> None:
        """Press keys; Enter is a line feed, Ctrl-C is \\x03, Ctrl-D is \\x04."""
        os.write(self._handle, keys.encode())

    def insist(self, key: str, text: str) -> str:
        """Press a key until `text` is shown. A signal that comes while readline shows its prompt and
        does not wait yet is only heard with the next key."""
        end = time.monotonic() + PATIENCE
        while text not in self.screen[self._seen :]:
            assert time.monotonic() < end, f"no {text!r} in:\n{self.screen}"
            self.type(key)
            while text not in self.screen[self._seen :] and self._read(time.monotonic() + 5):
                pass
        return self.wait(text)

    def end(self) -> int:
        """Wait for the end of the command; its exit code."""
        end = time.monotonic() + PATIENCE
        while self._read(end):
            pass
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)

    def _read(self, end: float) -> bool:
        """Take in what is shown next; False at the end of the command, or of all patience."""
        ready, _, _ = select.select([self._handle], [], [], max(0.0, end - time.monotonic()))
        try:
            shown = os.read(self._handle, 65536) if ready else b""
        except OSError:  # what Linux says of a terminal that the last process has left
            shown = b""
        self.screen += shown.decode(errors="replace").replace("\r\n", "\n")
        return bool(shown)
