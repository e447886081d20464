"""Ctrl-C while a pack trains or an answer is written: the first one ends it after the tick or the
token, the second at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def listening(signals: Sequence[signal.Signals] = SIGNALS) -> Generator[Callable[[], bool]]:
    """Within it, whether one of these signals asked to stop. A second request is a
    KeyboardInterrupt, wherever it comes.

    Only the main thread hears signals: in any other, nothing changes.
    """
    asked: list[int] = []

    def hear(number: int, frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.signal(number, hear) for number in signals}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
