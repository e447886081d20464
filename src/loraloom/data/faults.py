"""Why a value does not fit its role in a format: (what is needed, what was got)."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from typing import Any, cast

from loraloom.data.classes import is_missing
from loraloom.data.conversation import FLAGS, ROLES, flag, from_json, is_talk, role_of, said, speaker
from loraloom.data.preferences import verdict
from loraloom.data.table import listed

Fault = tuple[str, str]
_EITHER = ("prompt", "opening", "completion", "chosen", "rejected")
"""Roles whose columns hold text or messages."""


def fault(role: str, value: Any) -> Fault | None:
    """What is wrong with `value` in the column that plays `role`; None where nothing is."""
    if role == "label":
        return _label_fault(value)
    if role in ("chosen", "rejected", "completion") and isinstance(value, dict):
        return _messages_fault([value])
    if role == "messages" or (role in _EITHER and (isinstance(value, list) or is_talk(value))):
        return _messages_fault(from_json(value))
    if role == "verdict":
        return None if verdict(value) is not None else ("true or false, good or bad", _shown(value))
    if role == "margin":
        return _margin_fault(value)
    if role == "tools":
        return _tools_fault(from_json(value))
    if role == "history":
        return _history_fault(from_json(value))
    if role == "variables":
        return (
            None
            if isinstance(from_json(value), Mapping)
            else ("variables of the chat template, as an object", kind(value))
        )
    return None if isinstance(value, str) else ("text", kind(value))


def _label_fault(value: Any) -> Fault | None:
    if isinstance(several := _as_list(value), list):
        return (
            "one class a row (text or a whole number); several labels of a row are not supported",
            f"the list {several}",
        )
    if isinstance(value, str | bool | int | float) or is_missing(value):
        return None
    return "a class: text or a whole number", kind(value)


def _margin_fault(value: Any) -> Fault | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and math.isfinite(value) and value >= 0:
        return None
    return "by how much the chosen answer is better, as a number of at least 0", _shown(value)


def _shown(value: Any) -> str:
    """A value itself where it is short, else what it is."""
    short = isinstance(value, str | int | float) and 0 < len(str(value).strip()) <= 20
    return repr(value) if short else kind(value)


def _as_list(value: Any) -> Any:
    """A label that is a list, as a table without lists writes one: in JSON, or as
    Python prints it; others as they are."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    try:
        return ast.literal_eval(value.strip())
    except (MemoryError, RecursionError, SyntaxError, TypeError, ValueError):
        return from_json(value)


def _messages_fault(value: Any) -> Fault | None:
    need = 'a list of {"role": ..., "content": ...} or {"from": ..., "value": ...}'
    if not isinstance(value, list) or not value:
        return need, kind(cast(Any, value))
    for number, entry in enumerate(cast(list[Any], value), start=1):
        if not isinstance(entry, dict):
            return need, f"{kind(entry)} as message {number}"
        if found := _message_fault(cast(dict[str, Any], entry)):
            return found[0], f"{found[1]} in message {number}"
    return None


def _message_fault(entry: Mapping[str, Any]) -> Fault | None:
    if not isinstance(speaker(entry), str):
        return "`role` as text", f"the keys {listed(entry)}"
    if "from" in entry and "role" not in entry and role_of(entry["from"]) is None:
        return f"a speaker that is known: {listed(ROLES)}", f"from: {entry['from']!r}"
    for key in FLAGS:
        if entry.get(key) is not None and flag(entry[key]) is None:
            return f"`{key}` as 0 or 1, true or false", f"{key}: {entry[key]!r}"
    called = bool(entry.get("tool_calls") or entry.get("function_call"))
    return _content_fault("value" if "from" in entry else "content", said(entry), called=called)


def _content_fault(key: str, content: Any, *, called: bool) -> Fault | None:
    if isinstance(content, list):
        parts = cast(list[Any], content)
        texts = [
            isinstance(part, dict) and isinstance(cast(dict[str, Any], part).get("text"), str)
            for part in parts
        ]
        if all(texts):
            return None
        odd = parts[texts.index(False)]
        kinds = f" ({cast(dict[str, Any], odd).get('type')})" if isinstance(odd, dict) else ""
        return f"`{key}` as text or parts of text", f"parts that are not text{kinds}"
    if isinstance(content, str) or (content is None and called):
        return None
    return f"`{key}` as text", kind(content)


def _tools_fault(value: Any) -> Fault | None:
    need = 'a list of functions, as {"type": "function", "function": {...}} or as JSON text'
    if value is None or value == "" or isinstance(value, Mapping):
        return None
    if not isinstance(value, list):
        return need, f"{kind(value)} that is no JSON" if isinstance(value, str) else kind(value)
    odd = [
        tool
        for tool in (from_json(one) for one in cast(list[Any], value))
        if not isinstance(tool, Mapping)
    ]
    return (need, f"{kind(odd[0])} in the list") if odd else None


def _history_fault(value: Any) -> Fault | None:
    need = "a list of [user, assistant] pairs of text"
    if value is None or value == "":
        return None
    if not isinstance(value, list):
        return need, kind(value)
    for pair in cast(list[Any], value):
        two = cast(list[Any], pair) if isinstance(pair, list) else []
        if len(two) != 2 or not all(isinstance(text, str) for text in two):
            return need, f"{kind(pair)} in the list"
    return None


def kind(value: Any) -> str:
    """What a value is, in words."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, str):
        return "text" if value.strip() else "empty text"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    names = {"bool": "true or false", "int": "a number", "float": "a number", "dict": "an object"}
    return names.get(type(value).__name__, type(value).__name__)
