"""Who trains which candidates, where, and when each was heard of last: for runs with several workers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from loraloom.records import Event
from loraloom.store.replay import STATES


@dataclass
class Workers:
    """Workers as events tell of them.

    Attributes:
        places: of those who are there, by name.
    """

    places: dict[str, str] = field(default_factory=dict[str, str])
    _of: dict[str, str] = field(default_factory=dict[str, str])
    """The worker of each candidate that trains."""
    _at: dict[str, float] = field(default_factory=dict[str, float])
    """When a worker was heard of last, in seconds of the run."""
    _heard: dict[str, tuple[float, int]] = field(default_factory=dict[str, tuple[float, int]])
    """The same, and what it is by the clock."""

    def take(self, event: Event) -> None:
        """One event more."""
        if event.kind == "workers":
            self.places = {name: str(place) for name, place in event.data.items()}
            self._of = {trial: name for trial, name in self._of.items() if name in self.places}
            for name in self.places:
                self._at.setdefault(name, event.at)
        elif event.trial is not None:
            if event.data.get("worker"):
                self._of[event.trial] = str(event.data["worker"])
            if event.trial in self._of:
                self._at[self._of[event.trial]] = event.at
                if STATES.get(event.kind, "running") != "running":
                    del self._of[event.trial]

    def shown(self, seconds: float, written: float) -> list[dict[str, Any]]:
        """A row for each.

        Args:
            seconds: of the run, at its last event.
            written: when that was, in seconds since 1970.
        """
        for name, at in self._at.items():
            if self._heard.get(name, (None,))[0] != at:
                self._heard[name] = at, round(written - (seconds - at))
        return [
            {
                "name": name,
                "place": place,
                "trials": [trial for trial, worker in self._of.items() if worker == name],
                "heard": self._heard[name][1],
            }
            for name, place in sorted(self.places.items(), key=lambda one: (len(one[0]), one[0]))
        ]
