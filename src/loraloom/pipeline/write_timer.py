"""When files are written that a run brings up to date again and again: often, and never for long."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

EVERY_SECONDS = 30.0
"""Work that a sudden end may cost, in seconds, as long as writing takes little."""
SHARE = 0.05
"""Part of a run's time that writing one file may take."""


@dataclass
class WriteTimer:
    """Writes a file where something `urgent` happened and every `EVERY_SECONDS`, but
    never for more than `SHARE` of the time.

    Attributes:
        write: writes one.
        clock: seconds that only go forwards.
    """

    write: Callable[[], object]
    clock: Callable[[], float] = time.monotonic
    urgent: bool = True
    """Whether something happened that would be a pity to do again."""
    _last: float | None = None
    _cost: float = 0.0

    def maybe(self) -> None:
        """Write one if it is time."""
        now = self.clock()
        wait = 0.0 if self.urgent else EVERY_SECONDS
        if self._last is None or now - self._last >= max(wait, self._cost / SHARE):
            self.now()

    def now(self) -> None:
        """Write one."""
        began = self.clock()
        self.write()
        self.urgent, self._last = False, self.clock()
        self._cost = self._last - began
