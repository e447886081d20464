"""Every rule, once, in the order in which they are asked: a rule may read what those
before it decided."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module

from loraloom.plan.about import About
from loraloom.plan.case import Case
from loraloom.plan.preference import OF_REWARDS
from loraloom.plan.rules import fixed
from loraloom.records import Advice, Task

Rule = Callable[[Case], Advice]

_ORDER = (
    "task",
    "loss_type",
    "beta",
    "reference",
    "precision",
    "dtype",
    "attention",
    "max_length",
    "packing",
    "replay_share",
    "modules_to_save",
    "targets",
    "rank",
    "rslora",
    "alpha",
    "optimiser",
    "checkpointing",
    "quantization",
    "streaming",
    "batch",
    "accumulation",
    "epochs",
    "dropout",
    "weight_decay",
    "schedule",
    "warmup",
    "rate",
    "early_stopping",
    "max_packed",
    "trials",
    "finalist_seeds",
)
"""Names of the files."""
_FILES = [import_module(f"{__name__}.{name}") for name in _ORDER]


def _keep_default(case: Case, *, key: str) -> Advice:
    return fixed.advise(case, key)


RULES: dict[str, Rule] = {
    **{key: partial(_keep_default, key=key) for key in fixed.FIXED},
    **{module.KEY: module.advise for module in _FILES},
}
"""Dotted key -> rule. Settings that are the same for everyone come first."""


def rules_of(task: Task) -> tuple[str, ...]:
    """The keys that a plan decides."""
    return tuple(
        key
        for key in RULES
        if not key.startswith("preference.")
        or (task == "reward" and key in OF_REWARDS)
        or (task == "preference" and key not in OF_REWARDS)
    )


ABOUT: dict[str, About] = {
    **{key: kept.about for key, kept in fixed.FIXED.items()},
    **{module.KEY: module.ABOUT for module in _FILES},
}
"""Dotted key -> what is worth telling about it."""
