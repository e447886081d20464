"""`data.train` with weights: a list whose entries may be {source, weight, epochs, name}, or a mapping of
sources to weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast

from loraloom.config import names
from loraloom.config.asked import DataConfig, SourceConfig
from loraloom.errors import ConfigError

_PARTS = tuple(field.name for field in fields(SourceConfig))
_EXAMPLE = "[{source: a.jsonl, weight: 2}, {source: b.jsonl, weight: 1}]"
SUM_TOLERANCE = 0.02
"""Shares that a person has rounded (three times 0.33) still sum to 1."""


def is_mixed(value: Any) -> bool:
    """Whether a value of `data.train` says more than names."""
    return isinstance(value, Mapping) or (
        isinstance(value, list | tuple)
        and any(isinstance(one, Mapping | SourceConfig) for one in cast(Sequence[Any], value))
    )


def check_sources(value: Any, where: str) -> tuple[SourceConfig, ...]:
    """The sources of a mix, each with a name of its own.

    Raises:
        ConfigError: an entry that is none, a weight or a number of epochs that cannot be, a source or a
            name that stands twice, shares that do not sum to 1.
    """
    if isinstance(value, Mapping):
        listed = cast(Mapping[Any, Any], value).items()
        entries: list[Any] = [{"source": name, "weight": weight} for name, weight in listed]
    else:
        entries = list(cast(Sequence[Any], value))
    sources = [_source(entry, where) for entry in entries]
    _refuse_repeats([one.source for one in sources], "source", where)
    named = [replace(one, name=name) for one, name in zip(sources, _names(sources), strict=True)]
    _refuse_repeats([str(one.name) for one in named], "name", where)
    _check_sum(named, where)
    return tuple(named)


def mixed_sources(data: DataConfig) -> tuple[SourceConfig, ...]:
    """The sources that are mixed, each with a name; none where nothing is.

    Raises:
        ConfigError: as in `check_sources`, or `data.mix` does not go with them.
    """
    if not data.is_mixed:
        return ()
    mix = data.mix
    if isinstance(mix, dict) and list(mix) != ["temperature"]:
        raise ConfigError(
            f"`{names.MIX}` is {mix}",
            need="proportional, equal or {temperature: T}",
            next=f"{names.MIX}: {{temperature: 2}}",
        )
    if not isinstance(data.train, tuple) or len(data.train) < 2:
        raise ConfigError(
            f"a mix has several sources, and `{names.TRAIN}` has one",
            got=str(data.train_names),
            need=f"a list of sources, such as {_EXAMPLE}",
            next=f"leave `{names.MIX}` and weights out, or name another source",
        )
    sources = check_sources(data.train, names.TRAIN)
    if mix is not None and any(one.weight for one in sources):
        raise ConfigError(
            f"`{names.MIX}` and weights both say how much each source has",
            next=f"leave `{names.MIX}` or the weights out",
        )
    return sources


def _source(entry: Any, where: str) -> SourceConfig:
    if isinstance(entry, SourceConfig):
        return entry
    if isinstance(entry, str) and entry:
        return SourceConfig(entry)
    if not isinstance(entry, Mapping):
        raise ConfigError(
            f"`{names.TRAIN}` has {entry!r}, which is no source",
            need="a name, or {source, weight, epochs, name}",
            next=f"for example {_EXAMPLE}",
            where=where,
        )
    parts = cast(Mapping[Any, Any], entry)
    unknown = [part for part in parts if part not in _PARTS]
    source, name = parts.get("source"), parts.get("name")
    if unknown or not isinstance(source, str) or not source:
        what = f"`{unknown[0]}`, which no source has" if unknown else "an entry without a source"
        raise ConfigError(
            f"`{names.TRAIN}` has {what}",
            got=str(dict(parts)),
            need=f"a mapping of {', '.join(_PARTS)}",
            next=f"for example {_EXAMPLE}",
            where=where,
        )
    if name is not None and (not isinstance(name, str) or not name):
        raise ConfigError(
            f"the name of {source} is {name!r}", need="text", next="leave it out", where=where
        )
    weight, epochs = (_amount(parts.get(part), part, source, where) for part in ("weight", "epochs"))
    if weight is not None and epochs is not None:
        raise ConfigError(
            f"{source} has both a weight and epochs, and each says how much of it is trained on",
            next="keep one of the two",
            where=where,
        )
    return SourceConfig(source, weight, epochs, name)


def _amount(value: Any, part: str, source: str, where: str) -> float | None:
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value <= 0:
        raise ConfigError(
            f"the {part} of {source} is {value!r} but must be a number above 0",
            next=f"leave {source} out where nothing of it is to be trained on",
            where=where,
        )
    return float(value)


def _names(sources: Sequence[SourceConfig]) -> list[str]:
    """What reports call each: its name, else its file's, or the path where two files share that."""
    stems = [Path(one.source).stem or one.source for one in sources]
    return [
        one.name or (stem if stems.count(stem) == 1 else one.source)
        for one, stem in zip(sources, stems, strict=True)
    ]


def _refuse_repeats(values: Sequence[str], what: str, where: str) -> None:
    twice = next((value for value in values if values.count(value) > 1), None)
    if twice is not None:
        raise ConfigError(
            f"`{names.TRAIN}` has the {what} {twice} twice",
            need=f"each {what} once",
            next="give it a larger weight" if what == "source" else "give one of them another name",
            where=where,
        )


def _check_sum(sources: Sequence[SourceConfig], where: str) -> None:
    """Weights that are all below 1 were meant as shares."""
    weights = [one.weight for one in sources if one.weight is not None]
    total = sum(weights)
    if len(weights) < 2 or max(weights) >= 1 or abs(total - 1) <= SUM_TOLERANCE:
        return
    raise ConfigError(
        f"the weights of `{names.TRAIN}` read like shares, but sum to {total:g}",
        got=", ".join(f"{one.source} {one.weight:g}" for one in sources if one.weight is not None),
        need="shares that sum to 1, or weights such as 2 and 1",
        next="correct the one that is off",
        where=where,
    )
