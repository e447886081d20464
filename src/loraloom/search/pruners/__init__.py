"""Who has to leave the pack early. One algorithm a file, listed here once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from loraloom.config import names
from loraloom.errors import ConfigError
from loraloom.search.pruners.pruner import EXITS_ONLY, NoPruner, Pruner

if TYPE_CHECKING:
    from optuna import Study, Trial

PRUNERS = ("auto", "careful", "asha", "hyperband", "median", "none")


def is_wide(name: str, trials: int) -> bool:
    """Whether a search by the pruner of a name starts wide: twice as many candidates,
    most of them for a short way."""
    return name == "auto" and trials > EXITS_ONLY


def make_pruner(
    name: str, trials: int, study: Study, running: Mapping[str, Trial], seed: int = 0
) -> Pruner:
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
        raise ConfigError(
            f"there is no pruner `{name}`",
            where=names.PRUNER,
            need=f"one of {', '.join(PRUNERS)}",
            next=f"leave `{names.PRUNER}` at auto",
        )
    from loraloom.search.pruners.named import NamedPruner

    return NamedPruner(name, trials, study, running)
