"""When files are written that a run brings up to date again and again: often, and never for long."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass

EVERY_SECONDS = 30.0
"""Work that a sudden end may cost, in seconds, as long as writing takes little."""
SHARE = 0.05
"""Part of a run's time that writing one file may take."""


@dataclass
class WriteTimer:
    """Has a file written where something `urgent` happened and every `EVERY_SECONDS`, but never for more
    than `SHARE` of the time.

    Attributes:
        clock: seconds that only go forwards.
    """

    clock: Callable[[], float] = time.monotonic
    urgent: bool = True
    """Whether something happened that would be a pity to do again."""
    _last: float | None = None
    _cost: float = 0.0

    def due(self) -> bool:
        """Whether it is time to write."""
        wait = 0.0 if self.urgent else EVERY_SECONDS
        return self._last is None or self.clock() - self._last >= max(wait, self._cost / SHARE)

    @contextmanager
    def writing(self) -> Generator[None]:
        """While it is written."""
        began = self.clock()
        yield
        self.urgent, self._last = False, self.clock()
        self._cost = self._last - began
