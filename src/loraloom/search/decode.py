"""From what a user wrote under `search.space` to a dimension, with errors that name the key."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from typing import Any, Literal, cast, get_args, get_origin

from loraloom.config.keys import Key, keys, nearest
from loraloom.errors import ConfigError
from loraloom.records import AdapterSpec, TrainingSpec
from loraloom.search.dimensions import Dimension, Range, choices, is_number, is_power_of_two, powers_of_two
from loraloom.search.space import BATCH, RANK

_PARTS = ("low", "high", "log", "step")
_BY_LOGARITHM = (RANK, BATCH)
_SHARED = ("training.seed", "adapter.modules_to_save")
"""What all candidates of a run have in common, so that they can be compared."""


@cache
def searchable() -> tuple[str, ...]:
    """The keys that candidates of one run may differ in: what one adapter and its training are made of."""
    ours = {f"adapter.{field.name}" for field in fields(AdapterSpec)} | {
        f"training.{field.name}" for field in fields(TrainingSpec)
    }
    return tuple(name for name, key in keys().items() if name in ours.difference(_SHARED) and not key.takes_mapping)


def dimension(name: str, asked: Any) -> Dimension:
    """One entry of `search.space`.

    Args:
        name: dotted key of the config.
        asked: a list of choices, or {low, high, log, step}.

    Raises:
        ConfigError: the key cannot be searched, or a value is none that it takes.
    """
    if name not in searchable():
        guess = nearest(name, among=searchable())
        raise ConfigError(
            f"`{name}` cannot be searched",
            need=f"one of {', '.join(searchable())}",
            next=f"did you mean `{guess}`?" if guess else None,
            where="search.space",
        )
    if isinstance(asked, Mapping):
        return _range(keys()[name], cast(Mapping[str, Any], asked))
    if isinstance(asked, list | tuple) and asked:
        return _choices(keys()[name], tuple(cast(list[Any], asked)))
    raise _error(
        keys()[name],
        f"{_show(asked)} is no set of choices",
        need="a list with one choice or more, or {low, high, log, step}",
        next=f"write {name}: [{keys()[name].example}]",
    )


def _choices(key: Key, values: tuple[Any, ...]) -> Dimension:
    values = tuple(_value(key, value) for value in values)
    twice = next((value for place, value in enumerate(values) if value in values[:place]), None)
    if twice is not None:
        raise _error(key, f"{_show(twice)} stands in the list twice", next="write it once")
    return choices(key.name, values)


def _range(key: Key, parts: Mapping[str, Any]) -> Dimension:
    unknown = next((part for part in parts if part not in _PARTS), None)
    missing = next((part for part in ("low", "high") if part not in parts), None)
    if unknown is not None or missing is not None:
        what = f"a range has no `{unknown}`" if unknown is not None else f"the range has no `{missing}`"
        raise _error(key, what, got=", ".join(map(str, parts)), need="low and high, if you like log or step too")
    if not {int, float}.intersection(key.kinds):
        raise _error(key, f"`{key.name}` is no number and has no range", next="list the choices: [..., ...]")
    low, high = (_number(key, part, _value(key, parts[part])) for part in ("low", "high"))
    log, step = parts.get("log"), parts.get("step")
    if low > high:
        raise _error(key, f"low is {low:g} and high is {high:g}", need="low at most as large as high", next="swap them")
    if log not in (None, True, False):
        raise _error(key, f"log is {_show(log)}", need="true or false")
    if log and low <= 0:
        raise _error(key, f"low is {low:g} on a logarithmic scale", need="low above 0", next="raise low, or leave log out")
    if log and step is not None:
        raise _error(key, "log and step cannot go together", next="leave one of them out, or list the choices")
    if step is not None and _number(key, "step", step) <= 0:
        raise _error(key, f"step is {_show(step)}", need="a number above 0")
    integer = float not in key.kinds
    if integer and step is not None and float(step) != int(step):
        raise _error(key, f"step is {_show(step)}, but `{key.name}` is a whole number", need="a whole step")
    if key.name in _BY_LOGARITHM and step is None and log is not False and is_power_of_two(low) and is_power_of_two(high):
        return powers_of_two(key.name, int(low), int(high))
    return Range(key.name, low, _last(low, high, step), bool(log), None if step is None else float(step), integer)


def _last(low: float, high: float, step: Any) -> float:
    """The last step that is not above high."""
    return high if step is None else low + math.floor((high - low) / float(step) + 1e-9) * float(step)


def _value(key: Key, asked: Any) -> Any:
    """A single choice in the type of its key."""
    numeric = bool({int, float}.intersection(key.kinds))
    value = _parsed(key, asked) if isinstance(asked, str) and numeric else asked
    if not any(_fits(value, kind) for kind in key.kinds if kind != Literal["auto"]):
        raise _error(key, f"{_show(value)} is no value of `{key.name}`", need=key.need.removesuffix(" or auto"))
    if is_number(value):
        if key.range and not key.range.holds(value):
            raise _error(key, f"{value:g} is out of range", need=key.range.words, next=f"try {key.example}")
        return float(value) if float in key.kinds else value
    return tuple(cast(list[str], value)) if isinstance(value, list | tuple) else value


def _parsed(key: Key, text: str) -> Any:
    """YAML reads 5e-5 (without a point) as text; here it is a number."""
    try:
        return float(text) if float in key.kinds else int(text)
    except ValueError:
        return text


def _fits(value: Any, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is tuple:
        return isinstance(value, list | tuple) and all(isinstance(item, str) for item in cast(list[Any], value))
    if kind is float:
        return is_number(value) and math.isfinite(value)
    if kind is int:
        return is_number(value) and isinstance(value, int)
    return isinstance(value, kind)


def _number(key: Key, part: str, value: Any) -> Any:
    if not is_number(value):
        raise _error(key, f"{part} is {_show(value)}", need="a number")
    return value


def _error(key: Key, what: str, *, got: str | None = None, need: str | None = None, next: str | None = None) -> ConfigError:
    return ConfigError(what, got=got, need=need, next=next, where=f"search.space.{key.name}")


def _show(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
