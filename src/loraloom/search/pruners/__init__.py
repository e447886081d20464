"""Who has to leave the pack early. One algorithm a file, listed once in `config.choices`."""

from __future__ import annotations

from loraloom.config import names
from loraloom.config.choices import PRUNERS, chosen
from loraloom.search.pruners.pruner import EXITS_ONLY, Pruner, PrunerInputs


def is_wide(name: str, trials: int) -> bool:
    """Whether a search by the pruner of a name starts wide: twice as many candidates,
    most of them for a short way."""
    return name == "auto" and trials > EXITS_ONLY


def make_pruner(name: str, inputs: PrunerInputs) -> Pruner:
    """The pruner of a name.

    Raises:
        ConfigError: there is no pruner of that name.
    """
    return chosen(PRUNERS, name, names.PRUNER)(inputs)
