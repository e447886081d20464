"""Who has to leave the pack early. One algorithm a file, listed here once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from loraloom.errors import ConfigError

if TYPE_CHECKING:
    from optuna.study import Study

    from loraloom.search.curves import Curve
    from loraloom.search.values import Verdict

PRUNERS = ("auto", "asha", "hyperband", "median", "none")


class Pruner(Protocol):
    """Looks at all curves and names the living trials to prune."""

    def verdicts(self, curves: Sequence[Curve]) -> list[Verdict]:
        """Verdicts with action "prune", none of them on a protected trial."""
        ...


class NoPruner:
    """Every trial runs to its end."""

    def verdicts(self, curves: Sequence[Curve]) -> list[Verdict]:
        """None."""
        return []


def make_pruner(name: str, trials: int, study: Study) -> Pruner:
    """The pruner of a name, for a search of so many trials.

    Raises:
        ConfigError: there is no pruner of that name.
    """
    if name == "none":
        return NoPruner()
    if name == "auto":
        from loraloom.search.pruners.rungs import RungPruner

        return RungPruner(trials)
    if name not in PRUNERS:
        raise ConfigError(f"there is no pruner `{name}`", need=f"one of {', '.join(PRUNERS)}", where="search.pruner")
    from loraloom.search.pruners.named import NamedPruner

    return NamedPruner(name, trials, study)
