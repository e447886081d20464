"""What may stand under `search.space`: decided here alone, for every verb and for
spaces that Python hands over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from functools import cache
from typing import Any, cast

from loraloom.config import names
from loraloom.config.keys import Key, keys, nearest
from loraloom.config.values import check_value, show, wrong_value
from loraloom.errors import ConfigError
from loraloom.records import AdapterSpec, PreferenceSpec, TrainingSpec

_SHARED = (names.SEED, names.MODULES_TO_SAVE)
"""What all candidates of a run have in common, so that they can be compared."""
_PARTS = ("low", "high", "log", "step")


@cache
def searchable() -> tuple[str, ...]:
    """The keys that candidates of one run may differ in: what one adapter and its
    training are made of."""
    specs = (AdapterSpec, TrainingSpec, PreferenceSpec)
    made_of = {field.name for spec in specs for field in fields(spec)}
    found = {
        name: key
        for name, key in keys().items()
        if name.startswith(("adapter.", "training.", "preference.")) and name not in _SHARED
    }
    return (
        *(
            name
            for name, key in found.items()
            # An allocation becomes the ranks of a candidate's layers.
            if (name.partition(".")[2] in made_of and not key.takes_mapping)
            or name == names.RANK_ALLOCATION
        ),
        # Each candidate has its own order of rows.
        names.REPLAY_SHARE,
    )


def check_space(
    asked: Any, where: str = names.SPACE, inner: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Each entry a list of choices or {low, high, log, step}, each number one that its
    key takes and in its type.

    Args:
        asked: dotted key -> list or range.
        where: the place it came from, which an error names.
        inner: the places of the entries.

    Raises:
        ConfigError: a key that cannot be searched, or a list or range that cannot be.
    """
    if not isinstance(asked, Mapping) or not asked:
        need = "auto or a mapping of keys to choices"
        raise wrong_value(keys()[names.SPACE], asked, need, where, example="{adapter.r: [8, 16, 32]}")
    entries = cast(Mapping[Any, Any], asked)
    places = inner or {}
    return {
        name: _check_entry(name, entry, places.get(str(name), where)) for name, entry in entries.items()
    }


def _check_entry(name: Any, asked: Any, where: str) -> Any:
    if name not in searchable():
        guess = nearest(str(name), among=searchable())
        raise ConfigError(
            f"`search.space` names `{name}`, which cannot be searched",
            need=f"one of {', '.join(searchable())}",
            next=(
                f"did you mean `{guess}`?" if guess else "leave it out: all candidates have it in common"
            ),
            where=where,
        )
    entry = replace(keys()[name], name=f"search.space.{name}")
    if isinstance(asked, list | tuple) and asked:
        return _check_choices(entry, list(cast("list[Any]", asked)), where)
    if isinstance(asked, Mapping):
        return _check_range(entry, cast(Mapping[str, Any], asked), where)
    raise ConfigError(
        f"`{entry.name}` is {show(asked)} but must be a list of choices or {{low, high, log, step}}",
        next=f"for example {{{name}: [{entry.example}]}}",
        where=where,
    )


def _check_choices(entry: Key, choices: list[Any], where: str) -> list[Any]:
    if "auto" in choices:
        raise ConfigError(
            f"`{entry.name}` has the choice auto, which is no value to try",
            next="name the values themselves",
            where=where,
        )
    values = [check_value(entry, choice, where, {}) for choice in choices]
    twice = next((value for place, value in enumerate(values) if value in values[:place]), None)
    if twice is not None:
        raise ConfigError(
            f"`{entry.name}` has the choice {show(twice)} twice", next="write it once", where=where
        )
    return values


def _check_range(entry: Key, parts: Mapping[str, Any], where: str) -> dict[str, Any]:
    name = entry.name
    key = entry.name.removeprefix("search.space.")
    unknown = next((part for part in parts if part not in _PARTS), None)
    missing = next((part for part in ("low", "high") if part not in parts), None)
    if unknown is not None or missing is not None:
        what = f"has no {missing}" if unknown is None else f"is a range, which has no `{unknown}`"
        raise ConfigError(
            f"`{name}` {what}",
            got=", ".join(map(str, parts)),
            need="low and high, if you like log or step too",
            next=f"for example {{{key}: {{low: {entry.example}, high: ...}}}}, or list the choices",
            where=where,
        )
    low, high = (check_value(entry, parts[end], where, {}) for end in ("low", "high"))
    if any(isinstance(end, bool) or not isinstance(end, int | float) for end in (low, high)):
        raise ConfigError(
            f"`{name}` has a low and a high, but `{key}` is no number",
            next="list the choices",
            where=where,
        )
    if low > high:
        raise ConfigError(
            f"`{name}` has low {low:g} and high {high:g}, but low must be at most high",
            next="swap them",
            where=where,
        )
    log = parts.get("log", False)
    step = parts.get("step")
    if not isinstance(log, bool):
        raise ConfigError(
            f"`{name}.log` is {show(log)} but must be true or false; try true", where=where
        )
    if step is not None and (
        isinstance(step, bool) or not isinstance(step, int | float) or not step > 0
    ):
        raise ConfigError(
            f"`{name}.step` is {show(step)} but must be a number above 0",
            next="leave it out for none",
            where=where,
        )
    if step is not None and float not in entry.kinds and step != int(step):
        raise ConfigError(
            f"`{name}.step` is {show(step)}, but `{key}` is a whole number",
            next="take a whole step",
            where=where,
        )
    if log and low <= 0:
        raise ConfigError(
            f"`{name}` is searched on a log scale, but its low is {low:g}",
            need="a low above 0",
            next="raise low, or leave log out",
            where=where,
        )
    if log and step is not None:
        raise ConfigError(
            f"`{name}` has both log and step",
            next="keep one of the two, or list the choices",
            where=where,
        )
    return {**parts, "low": low, "high": high}
