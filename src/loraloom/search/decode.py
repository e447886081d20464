"""From what stands under `search.space` to the space that is searched."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from loraloom.config.keys import keys
from loraloom.config.space import check_space
from loraloom.search.dimensions import Dimension, Range, choices, is_power_of_two, powers_of_two
from loraloom.search.space import BATCH, RANK, Space

_BY_LOGARITHM = (RANK, BATCH)


def decode_space(asked: Mapping[str, Any]) -> Space:
    """The space that a user wrote: dotted key -> list of choices, or {low, high, log, step}.

    Raises:
        ConfigError: a key that cannot be searched, or a list or range that cannot be; it names the key.
    """
    entries = check_space(asked).items()
    return Space(
        tuple(
            _range(key, entry) if isinstance(entry, Mapping) else choices(key, _settings(entry))
            for key, entry in entries
        )
    )


def _settings(listed: list[Any]) -> tuple[Any, ...]:
    """Lists of names as tuples, as a candidate has them."""
    return tuple(tuple(one) if isinstance(one, list) else one for one in listed)


def _range(key: str, parts: Mapping[str, Any]) -> Dimension:
    low = parts["low"]
    high = parts["high"]
    log = parts.get("log")
    step = parts.get("step")
    integer = float not in keys()[key].kinds
    if (
        key in _BY_LOGARITHM
        and step is None
        and log is not False
        and is_power_of_two(low)
        and is_power_of_two(high)
    ):
        return powers_of_two(key, low, high)
    return Range(
        key, low, _last(low, high, step), bool(log), None if step is None else float(step), integer
    )


def _last(low: float, high: float, step: float | None) -> float:
    """The last step that is not above high."""
    return high if step is None else low + math.floor((high - low) / float(step) + 1e-9) * float(step)
