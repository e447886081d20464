"""What is different about the trials of a search since the last look."""

from __future__ import annotations

from collections.abc import Sequence

from loraloom.records import TrialStatus
from loraloom.search.curves import Reading, TrialCurve


class Watch:
    """Remembers how it found each trial: a report changes one or two of a thousand."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[TrialStatus, Reading | None]] = {}

    def changed(self, curves: Sequence[TrialCurve]) -> list[TrialCurve]:
        """The trials that are new, or have another last reading or another status."""
        found: list[TrialCurve] = []
        for curve in curves:
            last = curve.readings[-1] if curve.readings else None
            status, reading = self._seen.get(curve.id, (None, None))
            if curve.status != status or last is not reading:
                self._seen[curve.id] = curve.status, last
                found.append(curve)
        return found
