"""What may be chosen by name, one line each: the name in a config, and where the chosen thing is made.

A place is "module:name", as text: this room imports no other, and nothing is imported before it is
chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from loraloom.errors import ConfigError

Choices = Mapping[str, str]

SAMPLERS: Choices = {
    "auto": "loraloom.search.samplers:automatic",
    "tpe": "loraloom.search.samplers:tpe",
    "gp": "loraloom.search.samplers:gp",
    "random": "loraloom.search.samplers:random",
    "sobol": "loraloom.search.samplers:sobol",
    "grid": "loraloom.search.samplers:grid",
    "one_factor": "loraloom.search.samplers:each_factor",
}
"""Functions from `SamplerInputs` to a `Sampler`."""

PRUNERS: Choices = {
    "auto": "loraloom.search.pruners.halving:automatic",
    "careful": "loraloom.search.pruners.rungs:careful",
    "asha": "loraloom.search.pruners.optuna_pruners:asha",
    "hyperband": "loraloom.search.pruners.optuna_pruners:hyperband",
    "median": "loraloom.search.pruners.optuna_pruners:median",
    "none": "loraloom.search.pruners.pruner:none",
}
"""Functions from `PrunerInputs` to a `Pruner`."""

OPTIMISERS: Choices = {
    "adamw": "loraloom.train.optim:adamw",
    "adamw_8bit": "loraloom.train.optim:adamw_8bit",
    "sgd": "loraloom.train.optim:sgd",
}
"""Functions from groups of parameters to a `torch.optim.Optimizer`. One that works element by element
may be added, with the bytes of its state in `plan.memory`; one that looks at a tensor's shape
(Adafactor, Muon) may not, since a slice of an arena holds many tensors."""

UNIFORM = "uniform"
MEASURED_ALLOCATIONS = ("energy", "adalora", "eva")
"""What has to be measured before ranks are known."""
RANK_ALLOCATIONS = (
    UNIFORM,
    *("attention", "mlp", "first", "middle", "last"),
    *(f"{role}_{third}" for role in ("attention", "mlp") for third in ("first", "middle", "last")),
    *MEASURED_ALLOCATIONS,
)
"""Where rank goes: groups are told apart in `plan.ranks`."""

NOISES = ("word_dropout", "word_swap", "casing", "punctuation", "typing")
"""Augmentations of a classifier's texts."""
AUGMENTATIONS = (*NOISES, "paraphrase", "learn_prompt")
"""What may be tried on training rows: `data.augment` makes it."""


def chosen(choices: Choices, name: str, key: str) -> Callable[..., Any]:
    """What makes the thing of a name.

    Args:
        key: dotted key of the config, for the message.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in choices:
        kind = key.rpartition(".")[2]
        raise ConfigError(
            f"there is no {kind} `{name}`",
            where=key,
            need=f"one of {', '.join(choices)}",
            next=f"correct `{key}`",
        )
    module, _, maker = choices[name].partition(":")
    return getattr(import_module(module), maker)
