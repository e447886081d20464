"""What a pruner is, and the one that prunes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from loraloom.search.curves import TrialCurve
from loraloom.search.values import Verdict

if TYPE_CHECKING:
    from optuna import Study, Trial

EXITS_ONLY = 4
"""Up to so many trials nothing is pruned: there is too little to compare with."""


@dataclass(frozen=True)
class PrunerInputs:
    """The search that a pruner is made for.

    Attributes:
        trials: how many candidates the whole search has.
        seed: of what is drawn by chance.
        study: where Optuna is told of all trials.
        running: those of them that are running, by the search's own ids.
    """

    trials: int
    seed: int
    study: Study
    running: Mapping[str, Trial]


class Pruner(Protocol):
    """Looks at all curves and names the living trials to prune."""

    def verdicts(self, curves: Sequence[TrialCurve], coming: int = 0) -> list[Verdict]:
        """Verdicts with action "prune" or "pause", none of them on a protected trial.

        Args:
            coming: candidates that are still to be handed out.
        """
        ...

    def released(self, curves: Sequence[TrialCurve], coming: int = 0) -> list[str]:
        """Paused trials that may go on."""
        ...


class NeverPauses:
    """What pruners share that let every trial that they keep go on at once."""

    def released(self, curves: Sequence[TrialCurve], coming: int = 0) -> list[str]:
        """None: nobody waits."""
        return []


class NoPruner(NeverPauses):
    """Every trial runs to its end."""

    def verdicts(self, curves: Sequence[TrialCurve], coming: int = 0) -> list[Verdict]:
        """None."""
        return []


def none(inputs: PrunerInputs) -> Pruner:
    """Nobody is pruned."""
    return NoPruner()
