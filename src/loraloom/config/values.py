"""One value of the request: in the type that `asked.py` declares, inside its range,
else an error that names key and place."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError

from loraloom.config import names
from loraloom.config.keys import Key
from loraloom.config.units import parse_bytes, parse_seconds
from loraloom.config.words import VALUES, squashed
from loraloom.errors import ConfigError

_NAMES = re.compile(r"[\w.\-]+\s*,[\w.\-\s,]*")
"""Names with commas between them; a pattern has other signs too."""
_LARGEST_NUMBER = 1e18
"""No setting comes near it, and all that is computed from settings still fits into 64 bits."""


def check_value(key: Key, value: Any, where: str, inner: Mapping[str, str]) -> Any:
    """`value` as the type of its key.

    Args:
        where: the place it came from, which an error names.
        inner: the places of its entries, where it is a mapping.

    Raises:
        ConfigError: it has another type, or is outside the key's range.
    """
    value = _meant(key, value)
    if isinstance(value, str) and key.takes_list and str not in key.kinds and value not in key.words:
        value = [value]
    if _is_wrong_bool(key, value):
        raise wrong_value(key, value, key.need, where)
    try:
        typed = _adapter(key.hint).validate_python(value)
    except ValidationError:
        hint = " (in quotes)" if str in key.kinds and isinstance(value, int | float) else ""
        raise wrong_value(key, value, key.need + hint, where) from None
    if any(
        isinstance(text, str) and "\0" in text
        for text in (typed if isinstance(typed, tuple) else (typed,))
    ):
        raise wrong_value(key, typed, "text without NUL characters", where)
    numbers = {None: typed} if not isinstance(typed, dict) else cast(dict[str | None, Any], typed)
    for entry, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int | float):
            continue
        if not -_LARGEST_NUMBER < number < _LARGEST_NUMBER or (
            key.range and not key.range.holds(number)
        ):
            name = key.name if entry is None else f"{key.name}.{entry}"
            limit = f"below {_LARGEST_NUMBER:g}"
            need = key.range.words if key.range else f"a number {limit}"
            if key.range and key.range.holds(number):
                need = f"{need} and {limit}"
            place = where if entry is None else inner.get(entry, where)
            raise ConfigError(
                f"`{name}` is {show(number)} but must be {need}; try {key.example}", where=place
            )
    _check_words(key, typed, where)
    return typed


def _meant(key: Key, value: Any) -> Any:
    """`value` in our words: names with commas between them are a list, and 4bit, as
    others call it, is nf4."""
    if key.takes_list and not key.takes_sources and isinstance(value, str) and _NAMES.fullmatch(value):
        return [name.strip() for name in value.split(",") if name.strip()]
    if isinstance(value, str | int) and not isinstance(value, bool):
        return VALUES.get(key.name.removeprefix("search.space."), {}).get(squashed(str(value)), value)
    return value


def _check_words(key: Key, value: Any, where: str) -> None:
    """The keys whose text has a form of its own."""
    if key.name == names.MEMORY and value != "auto":
        parse_bytes(value, where=where)
    elif key.name == names.TIME and value is not None:
        parse_seconds(value, where=where)
    elif key.name == names.METRIC and str(value).startswith("test_"):
        raise ConfigError(
            f"`search.metric` is {show(value)}, but a search that sees the test split has no honest test"
            " any more",
            next=f"try validation_{str(value).removeprefix('test_')}",
            where=where,
        )


@cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(hint)


def _is_wrong_bool(key: Key, value: Any) -> bool:
    """pydantic reads `true` as 1; for us that is a typing error."""
    items = cast(dict[Any, Any], value).values() if isinstance(value, dict) else (value,)
    return bool not in key.kinds and any(isinstance(item, bool) for item in items)


def wrong_value(key: Key, value: Any, need: str, where: str, example: str | None = None) -> ConfigError:
    return ConfigError(
        f"`{key.name}` is {show(value)} but must be {need}; try {example or key.example}", where=where
    )


def show(value: Any) -> str:
    """A value as YAML writes it, cut to a readable length."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = f"{value:g}" if isinstance(value, float) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
