"""What a run takes over from the adapter that it begins with (`adapter.init_from`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from loraloom.config import names
from loraloom.config.keys import is_asked
from loraloom.errors import ConfigError
from loraloom.lora.targets import resolve_pattern
from loraloom.plan.case import Case, target_linears
from loraloom.records import Advice
from loraloom.search.space import SCALE

FOLDER = "initial_adapter"
"""Where a run keeps its copy, in its own folder: `Candidate.start` of every candidate that is not
cloned with another one's weights."""


def inherited(case: Case, key: str, asked: Advice) -> Advice | None:
    """The value that the weights of the initial adapter fix; None where they leave `key` open.

    Args:
        asked: what the request says of `key`, where it says something.

    Raises:
        ConfigError: the request says something else.
    """
    initial = case.facts.initial
    if initial is None:
        return None
    held = initial.record.quantization
    if key == names.QUANTIZATION and held != "none" and not is_asked(case.asked, key):
        return Advice(held, f"of {initial.place}: its weights make up for the rounding", initial.place)
    if key not in initial.settings:
        return None
    value = initial.settings[key]
    if is_asked(case.asked, key) and _settled(case, key, asked.value) != _settled(case, key, value):
        raise ConfigError(
            f"`{key}` is {_shown(asked.value)}, and the weights of {initial.place} have {_shown(value)}",
            need="the shape of the adapter that the run begins with",
            next=f"leave `{key}` out, or begin with fresh weights: leave `adapter.init_from` out",
        )
    return Advice(value, f"of {initial.place}", initial.place)


def fixed_keys(case: Case) -> frozenset[str]:
    """Keys that no candidate may change."""
    initial = case.facts.initial
    return frozenset() if initial is None else frozenset({*initial.settings, SCALE})


def refuse_searched(case: Case, searched: Iterable[str]) -> None:
    """Raises ConfigError for a key of a space that the initial adapter fixes."""
    initial = case.facts.initial
    for key in searched:
        if initial is not None and key in fixed_keys(case):
            raise ConfigError(
                f"`search.space` names `{key}`, which every candidate has from {initial.place}",
                got=f"{key} {_shown(initial.settings[key])}, the shape of its weights",
                next=f"leave `{key}` out of the space",
            )


def _settled(case: Case, key: str, value: Any) -> Any:
    """A value as layers have it: two ways to write the same targets or patterns are equal."""
    assert case.facts.initial is not None
    settings, model = case.facts.initial.settings, case.facts.model
    whole = settings[names.MODULES_TO_SAVE]
    if key == names.TARGET_MODULES:
        return target_linears(model, value, whole)
    if key in (names.RANK_PATTERN, names.ALPHA_PATTERN):
        linears = target_linears(model, settings[names.TARGET_MODULES], whole)
        return resolve_pattern([linear.path for linear in linears], value, key=key)
    return value


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
