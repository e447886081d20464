"""Python values as JSON and YAML know them: every line and file that the store writes
goes through here."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, cast


def plain(value: Any) -> Any:
    """`value` made of dict, list, str, int, float, bool and None alone.

    NaN and infinities become None, because JSON has no word for them. Scalars and arrays of NumPy and
    torch become numbers and lists. Anything unknown becomes its text: an odd setting must never cost a
    run its record.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in cast(Mapping[Any, Any], value).items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in cast(list[Any], value)]
    if isinstance(value, (set, frozenset)):
        return sorted((plain(item) for item in cast(set[Any], value)), key=str)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    to_list = getattr(value, "tolist", None)
    if callable(to_list):
        return plain(to_list())
    return str(value)


def to_json(value: Any, *, indent: int | None = None) -> bytes:
    """`value` as UTF-8 JSON; without `indent` on one line.

    A lone surrogate (half of a character, as broken input has it) is written as its
    escape, which JSON allows.
    """
    text = json.dumps(plain(value), ensure_ascii=False, allow_nan=False, indent=indent)
    return text.encode("utf-8", "backslashreplace")
