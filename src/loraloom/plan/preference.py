"""Which settings of preferences go together: what would do nothing is refused before anything starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from loraloom.config import names
from loraloom.config.keys import is_asked, keys
from loraloom.errors import ConfigError
from loraloom.plan.case import Case

NEEDED: Mapping[str, str] = {
    names.LABEL_SMOOTHING: "robust",
    names.SIMPO_GAMMA: "simpo",
    names.CPO_ALPHA: "simpo",
    names.DESIRABLE_WEIGHT: "kto",
    names.UNDESIRABLE_WEIGHT: "kto",
}
"""Key -> the loss that it is part of. TRL reads the others and leaves them unused."""
OF_REWARDS = (names.CENTER_REWARDS_COEFFICIENT,)
"""Keys that are part of a reward model's loss, and of no other."""
ALONE = ("orpo", "simpo", "kto")
"""Losses that stand for themselves: each is a trainer of its own in TRL."""


def check(case: Case) -> None:
    """Refuse settings that contradict the task, the rows or one another.

    Raises:
        ConfigError: it says which, and what would be right.
    """
    asked = [key for key in keys() if key.startswith("preference.") and is_asked(case.asked, key)]
    task = case.facts.data.task
    if task == "reward":
        searched = [key for key in _searched(case) if key.startswith("preference.")]
        _refuse([key for key in (*asked, *searched) if key not in OF_REWARDS], task, "preference")
        return
    if task != "preference":
        _refuse([key for key in asked if key in OF_REWARDS], task, "reward")
        _refuse(asked, task, "preference")
        return
    _refuse([key for key in (*asked, *_searched(case)) if key in OF_REWARDS], task, "reward")
    choices = _choices(case)
    for loss_type in choices:
        _check_losses(loss_type, case.facts.data.sides)
    for key in {*asked, *_searched(case)} & {*NEEDED}:
        _check_needed(key, choices)
    weights = case.asked.preference.loss_weights
    if weights and any(len(weights) != len(loss_type) for loss_type in choices):
        raise ConfigError(
            f"`{names.LOSS_WEIGHTS}` has {len(weights)} numbers",
            got=f"{names.LOSS_TYPE}: {', '.join(_shown(one) for one in choices)}",
            need="one for each loss",
            next=f"leave `{names.LOSS_WEIGHTS}` out for 1 each",
        )
    if is_asked(case.asked, names.REFERENCE) and is_reference_free(case):
        raise ConfigError(
            f"`{names.REFERENCE}` is set, and {_shown(choices[0])} has no reference in it",
            next=f"leave `{names.REFERENCE}` out",
        )


def _refuse(asked: Sequence[str], task: str, needed: str) -> None:
    """Raises ConfigError for the first of these keys, which do nothing for the task."""
    rows = "pairs of answers" if needed == "reward" else "pairs of answers, or answers that are judged,"
    for key in asked:
        raise ConfigError(
            f"`{key}` is set, and the task is {task}",
            need=f"{rows} and `task: {needed}`",
            next=f"leave `{key}` out, or set `task: {needed}`",
        )


def _check_losses(loss_type: Sequence[str], sides: int) -> None:
    alone = next((one for one in loss_type if one in ALONE), None)
    fault = remedy = None
    if not loss_type:
        fault, remedy = "is empty", "leave it out, or name one loss"
    elif len({*loss_type}) < len(loss_type):
        fault, remedy = "names a loss twice", f"write it once; {names.LOSS_WEIGHTS} weighs it"
    elif alone and len(loss_type) > 1:
        fault, remedy = f"joins {alone} with others", f"{names.LOSS_TYPE}: {alone}, or leave it out"
    elif tuple(loss_type) == ("sft",):
        fault = "is sft, which looks at the chosen answers alone"
        remedy = "[sigmoid, sft], or `task: causal_lm` to learn the chosen answers"
    elif alone == "kto" and sides == 2:
        fault = "is kto, and the rows are pairs of answers"
        remedy = "sigmoid; or rows of a prompt, a completion and whether it is good"
    elif alone != "kto" and sides == 1:
        fault = "compares two answers, and each row has one that is judged"
        remedy = f"{names.LOSS_TYPE}: kto; or rows of a prompt, a chosen and a rejected answer"
    if fault:
        raise ConfigError(f"`{names.LOSS_TYPE}: {_shown(loss_type)}` {fault}", next=remedy)


def _check_needed(key: str, choices: Sequence[Sequence[str]]) -> None:
    without = next((one for one in choices if NEEDED[key] not in one), None)
    if without is not None:
        raise ConfigError(
            f"`{key}` does nothing in {_shown(without)}",
            need=f"the loss {NEEDED[key]}",
            next=f"leave `{key}` out, or set {names.LOSS_TYPE}: {NEEDED[key]}",
        )


def _choices(case: Case) -> tuple[tuple[str, ...], ...]:
    """Every value of the loss that a candidate may have."""
    own = case.asked.preference.loss_type
    if own == "auto":
        own = ("kto",) if case.facts.data.sides == 1 else ("sigmoid",)
    searched: Any = _searched(case).get(names.LOSS_TYPE, [own])
    return tuple(tuple(one) for one in searched)


def _searched(case: Case) -> Mapping[str, Any]:
    space = case.asked.search.space
    return {} if space == "auto" else space


def is_reference_free(case: Case) -> bool:
    """Whether no candidate's loss has a reference in it."""
    return all(has_no_reference(loss_type) for loss_type in _choices(case))


def has_no_reference(loss_type: Sequence[str]) -> bool:
    """Whether a loss is formed of the candidate's own likelihoods alone."""
    return all(loss in ("orpo", "simpo") for loss in loss_type)


def _shown(loss_type: Sequence[str]) -> str:
    return loss_type[0] if len(loss_type) == 1 else f"[{', '.join(loss_type)}]"
