"""Amounts as people write them: "12GiB" of memory, "1h30m" of time."""

from __future__ import annotations

import math
import re
from typing import overload

from loraloom.config import names
from loraloom.errors import ConfigError

_LARGEST_BYTES = 2**62
_BYTES = re.compile(
    r"(?P<number>\d+(?:\.\d+)?)\s*(?:(?P<prefix>[kmgt])(?P<binary>i?))?(?:b|bytes)?", re.IGNORECASE
)
_POWER = {"k": 1, "m": 2, "g": 3, "t": 4}
_PART = r"\d+(?:\.\d+)?\s*"
_SECONDS = re.compile(
    rf"(?:(?P<d>{_PART})d)?\s*(?:(?P<h>{_PART})h)?\s*"
    rf"(?:(?P<m>{_PART})m(?:in)?)?\s*(?:(?P<s>{_PART})s?)?",
    re.IGNORECASE,
)
_SECONDS_IN = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}


def parse_bytes(text: str | int, *, key: str = names.MEMORY, where: str | None = None) -> int:
    """Bytes in `text`: a whole number of bytes, or a number with kB, MB, GB, TB (1000s)
    or KiB, MiB, GiB, TiB (1024s).

    The B may be left out: "8G" is 8 GB, the smaller reading of the two. Raises ConfigError naming `key`.
    """
    amount = 0
    if match := _BYTES.fullmatch(str(text).strip()):
        power = _POWER[match["prefix"].lower()] if match["prefix"] else 0
        exact = float(match["number"]) * (1024 if match["binary"] else 1000) ** power
        amount = round(min(exact, 2 * _LARGEST_BYTES))  # `exact` may be infinite
    if not 1 <= amount <= _LARGEST_BYTES:
        limit = "above 0" if amount < 1 else "of at most 4 EiB"
        raise ConfigError(
            f"`{key}` is {text!r} but must be an amount of memory {limit}; try 12GiB", where=where
        )
    return amount


@overload
def parse_seconds(text: str | float, *, key: str = ..., where: str | None = ...) -> float: ...
@overload
def parse_seconds(text: None, *, key: str = ..., where: str | None = ...) -> None: ...
def parse_seconds(
    text: str | float | None, *, key: str = names.TIME, where: str | None = None
) -> float | None:
    """Seconds in `text`: a number of seconds, or parts from long to short such as
    "30m", "2h", "1h30m", "1d 12h", "90s".

    None, for no limit, stays None. Raises ConfigError naming `key`.
    """
    if text is None:
        return None
    seconds = 0.0
    if isinstance(text, str):
        if match := _SECONDS.fullmatch(text.strip()):
            seconds = sum(
                float(part) * _SECONDS_IN[unit] for unit, part in match.groupdict().items() if part
            )
    else:
        seconds = float(text)
    if not (math.isfinite(seconds) and seconds > 0):
        shown = repr(text) if isinstance(text, str) else f"{text:g}"
        raise ConfigError(f"`{key}` is {shown} but must be a time above 0; try 30m", where=where)
    return seconds
