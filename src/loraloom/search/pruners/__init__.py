"""Who has to leave the pack early. One algorithm a file, listed here once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from loraloom.errors import ConfigError

if TYPE_CHECKING:
    from optuna import Study, Trial

    from loraloom.search.curves import Curve
    from loraloom.search.values import Verdict

PRUNERS = ("auto", "careful", "asha", "hyperband", "median", "none")
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


def is_wide(name: str, trials: int) -> bool:
    """Whether a search by the pruner of a name starts wide: twice as many candidates, most of them for a short way."""
    return name == "auto" and trials > EXITS_ONLY


def make_pruner(name: str, trials: int, study: Study, running: Mapping[str, Trial], seed: int = 0) -> Pruner:
    """The pruner of a name, for a search of so many trials.

    Args:
        study: where Optuna is told of all trials.
        running: those of them that are running, by the search's own ids.
        seed: of what is drawn by chance.

    Raises:
        ConfigError: there is no pruner of that name.
    """
    if name == "none" or (name in ("auto", "careful") and trials <= EXITS_ONLY):
        return NoPruner()
    if name == "auto":
        from loraloom.search.pruners.halving import HalvingPruner

        return HalvingPruner(trials, seed)
    if name == "careful":
        from loraloom.search.pruners.rungs import RungPruner

        return RungPruner(trials)
    if name not in PRUNERS:
        raise ConfigError(f"there is no pruner `{name}`", need=f"one of {', '.join(PRUNERS)}", where="search.pruner")
    from loraloom.search.pruners.named import NamedPruner

    return NamedPruner(name, trials, study, running)
