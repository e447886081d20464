"""What a pruner is, and the one that prunes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from loraloom.search.curves import Curve
from loraloom.search.values import Verdict

EXITS_ONLY = 4
"""Up to so many trials nothing is pruned: there is too little to compare with."""


class Pruner(Protocol):
    """Looks at all curves and names the living trials to prune."""

    def verdicts(self, curves: Sequence[Curve], coming: int = 0) -> list[Verdict]:
        """Verdicts with action "prune" or "pause", none of them on a protected trial.

        Args:
            coming: candidates that are still to be handed out.
        """
        ...

    def released(self, curves: Sequence[Curve], coming: int = 0) -> list[str]:
        """Paused trials that may go on."""
        ...


class NeverPauses:
    """What pruners share that let every trial that they keep go on at once."""

    def released(self, curves: Sequence[Curve], coming: int = 0) -> list[str]:
        """None: nobody waits."""
        return []


class NoPruner(NeverPauses):
    """Every trial runs to its end."""

    def verdicts(self, curves: Sequence[Curve], coming: int = 0) -> list[Verdict]:
        """None."""
        return []
