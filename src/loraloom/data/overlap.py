"""What held-out rows share with the rows that a run trains on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["content", "column", "asked", "near"]
"""Rows that say the same, share a value of a column, are asked the same, or are nearly the same text."""


@dataclass(frozen=True)
class Overlap:
    """Rows of one held-out split that are related to a row of an earlier split, and to
    none more closely."""

    split: str
    kind: Kind
    words: str
    rows: int
    of: int

    @property
    def sentence(self) -> str:
        how = "as" if self.kind in ("content", "near") else "with"
        used = "trained or chosen on" if self.split == "test" else "trained on"
        return f"{self.rows:,} of {self.of:,} {self.split} rows {self.words} {how} rows that are {used}"
