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
        part: of `SHARE` that is allowed.
        saves: what is left of that share serves later, up to that of `EVERY_SECONDS`: two urgent things
            in a row are both written.
    """

    clock: Callable[[], float] = time.monotonic
    part: float = 1.0
    saves: bool = False
    urgent: bool = True
    """Whether something happened that would be a pity to do again."""
    _whole: float | None = None
    """When all was written last."""
    _last: float = 0.0
    _debt: float = 0.0
    """Seconds of writing, at `_last`, that are to be made up for; below zero, seconds left."""

    def late(self) -> bool:
        """Whether all was last written so long ago that it is time again."""
        return self._whole is None or self.clock() - self._whole >= EVERY_SECONDS

    def due(self) -> bool:
        """Whether it is time to write."""
        return (self.urgent or self.late()) and self._owed(self.clock()) <= 0

    @contextmanager
    def writing(self, *, whole: bool = True) -> Generator[None]:
        """While it is written; not `whole` where it is only what was urgent."""
        began = self.clock()
        yield
        ended = self.clock()
        cost = ended - began
        share = self.part * SHARE
        least = -share * EVERY_SECONDS if self.saves else 0.0
        self._debt = max(self._owed(began), least) + (1 - share) * cost
        self._last, self.urgent = ended, False
        if whole:
            self._whole = ended

    def _owed(self, now: float) -> float:
        return 0.0 if self._whole is None else self._debt - self.part * SHARE * (now - self._last)
