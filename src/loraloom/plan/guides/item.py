"""One recommendation of a guide, in our own words, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Item:
    """`by` names what carries it out, each as "KIND NAME": rule, setting, preset, goal,
    command or test."""

    id: str
    """Guide and number: "0.3"."""
    says: str
    because: str
    by: tuple[str, ...]
    overruled: str = ""
    """Source that speaks against it; empty where it is followed."""

    @property
    def status(self) -> str:
        return "overruled" if self.overruled else "followed"

    @property
    def keys(self) -> tuple[str, ...]:
        """The settings that it is about."""
        return tuple(
            name
            for kind, _, name in (what.partition(" ") for what in self.by)
            if kind in ("rule", "setting")
        )


def followed(id: str, says: str, because: str, *by: str) -> Item:
    return Item(id, says, because, by)


def overruled(id: str, says: str, because: str, source: str, *by: str) -> Item:
    """`by` names what is done instead."""
    return Item(id, says, because, by, source)
