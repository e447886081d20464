"""Conversations in one form, whatever they were written in: what a chat template reads,
and which turns are learnt.

OpenAI's and ShareGPT's keys, the role names of all common formats, JSON text where a table has no lists,
arguments of tools as text or as an object, and the nulls that Arrow adds to every struct all end here.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

Message = dict[str, Any]
"""{"role": ..., "content": ...}, and whatever else a template reads."""


@dataclass(frozen=True)
class Conversation:
    """One row as a chat template takes it.

    Attributes:
        learnt: for each message, whether what it says is learnt. Only answers are, and
            never what opens the conversation.
        tools: functions that the model may call, each as OpenAI writes it.
        variables: other variables of the template, by name.
    """

    messages: tuple[Message, ...]
    learnt: tuple[bool, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    variables: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def answers(self) -> tuple[int, ...]:
        """The messages that are learnt, by their place."""
        return tuple(index for index, learnt in enumerate(self.learnt) if learnt)

    @property
    def is_context(self) -> bool:
        """Whether there are answers, and what the row says leaves all of them out."""
        return not self.answers and any(
            m["role"] == "assistant" and says_something(m) for m in self.messages[1:]
        )


ROLES = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "chatbot": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "ai": "assistant",
    "function_call": "assistant",
    "tool_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "function_response": "tool",
    "tool_response": "tool",
    "ipython": "tool",
}
"""Names that data sets give to speakers, in small letters, and the roles that templates know."""

_CALLS = ("function_call", "tool_call")
"""Roles whose content is the call of a function, as JSON text."""

FLAGS = {
    "weight": True,
    "train": True,
    "training": True,
    "trainable": True,
    "loss": True,
    "mask": False,
    "masked": False,
}
"""Keys that say whether a message is learnt (OpenAI's weight, axolotl's train, loss of
ms-swift), and which value says yes."""

REASONING = ("reasoning_content", "reasoning", "thinking")
"""Keys under which a message has what the model thought before it answered; the first
is what templates read."""

_PRINTED = re.compile(r"\s*\[?\s*\{\s*'")
"""How Python prints an object, or a list of them: what pandas writes into a CSV cell."""

_SPOKEN = ("role", "from", "content", "value")


def role_of(name: str) -> str | None:
    """The role that a speaker's name stands for; None where it is not known."""
    return ROLES.get(_word(name))


def speaker(entry: Mapping[str, Any]) -> Any:
    """Who speaks, as the row has it."""
    return entry.get("role") if entry.get("role") is not None else entry.get("from")


def said(entry: Mapping[str, Any]) -> Any:
    """What is said, as the row has it."""
    return entry.get("content") if entry.get("content") is not None else entry.get("value")


def flag(value: Any) -> bool | None:
    """0 or 1, true or false, or either as text; None for anything else."""
    word = str(value).strip().casefold()
    return {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}.get(word)


def flags_of(entry: Mapping[str, Any]) -> dict[str, bool]:
    """Each flag of a message that says something, with whether it says that the message is learnt."""
    return {
        key: value == yes
        for key, yes in FLAGS.items()
        if entry.get(key) is not None and (value := flag(entry[key])) is not None
    }


def says_something(answer: Message) -> bool:
    """Whether an answer has anything in it; an empty one would teach to end a turn at once."""
    return bool(
        str(answer.get("content") or "").strip() or answer.get("tool_calls") or answer.get(REASONING[0])
    )


def read_message(entry: Mapping[str, Any]) -> Message:
    """An entry of a list of messages as templates read it: role, content, calls of
    tools, and the other keys as they are."""
    name = str(speaker(entry))
    content = said(entry)
    if isinstance(content, list):
        content = "".join(part["text"] for part in cast(list[Mapping[str, str]], content))
    message: Message = {"role": role_of(name) or name, "content": content}
    message |= {
        key: without_nulls(value) for key, value in entry.items() if key not in (*_SPOKEN, *FLAGS)
    }
    for key in REASONING:
        if (thought := message.pop(key, None)) is not None:
            message[REASONING[0]] = thought
    legacy = message.pop("function_call", None)
    calls = _listed(from_json(message.pop("tool_calls", None) or legacy))
    if _word(name) in _CALLS and (found := _listed(from_json(content))):
        calls = found
        message["content"] = None
    if calls:
        message["tool_calls"] = [_call(call) for call in calls]
    return {key: value for key, value in message.items() if value is not None}


def read_messages(value: Any) -> list[Message]:
    """All messages of a cell, which may hold them as JSON text."""
    return [read_message(entry) for entry in entries(value)]


def entries(value: Any) -> list[Mapping[str, Any]]:
    """The entries of a cell that holds messages, as a list or as JSON text."""
    return cast(list[Mapping[str, Any]], from_json(value))


def read_tools(value: Any) -> tuple[Mapping[str, Any], ...]:
    """The functions of a cell (a list, one function, or JSON text of these), each as {"type":
    "function", "function": ...}."""
    return tuple(_tool(from_json(tool)) for tool in _listed(from_json(value)))


def own_tools(talk: Sequence[Mapping[str, Any]]) -> Any:
    """Tools that stand in a message rather than beside the messages; None where there are none."""
    return next((entry["tools"] for entry in talk if entry.get("tools")), None)


def is_talk(value: Any) -> bool:
    """Whether a cell holds a list of messages, as it is or as JSON text."""
    found = from_json(value)
    return isinstance(found, list) and bool(found) and all(isinstance(entry, Mapping) for entry in found)  # pyright: ignore[reportUnknownVariableType]


def from_json(value: Any) -> Any:
    """What a cell holds where it is the text of a list or an object, in JSON or as Python prints it;
    else the value itself."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        if not _PRINTED.match(value):
            return value
    try:
        return ast.literal_eval(value.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return value


def without_nulls(value: Any) -> Any:
    """The same without keys whose value is null: Arrow gives every struct of a column
    the keys of all."""
    if isinstance(value, Mapping):
        pairs = cast(Mapping[str, Any], value).items()
        return {key: without_nulls(inner) for key, inner in pairs if inner is not None}
    if isinstance(value, list):
        return [without_nulls(inner) for inner in cast(list[Any], value)]
    return value


def leaves_out_nulls(entry: Mapping[str, Any]) -> bool:
    """Whether the calls of a message have arguments that are null, which are left out."""
    calls = entry.get("tool_calls") or entry.get("function_call")
    return not isinstance(calls, str) and any(_has_null(_arguments(call)) for call in _listed(calls))


def _arguments(call: Any) -> Any:
    function = call.get("function") or call if isinstance(call, Mapping) else None
    return function.get("arguments") if isinstance(function, Mapping) else None


def _has_null(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(
            inner is None or _has_null(inner) for inner in cast(Mapping[str, Any], value).values()
        )
    return isinstance(value, list) and any(_has_null(inner) for inner in cast(list[Any], value))


def pairs_of(value: Any) -> Iterator[tuple[str, str]]:
    """(user, assistant) of each earlier turn in a cell that holds a history."""
    yield from from_json(value) or ()


def _word(name: str) -> str:
    return name.strip().casefold().replace("-", "_").replace(" ", "_")


def _listed(value: Any) -> list[Any]:
    """A list of what there is: calls and tools come alone, too."""
    if isinstance(value, Mapping):
        return [value]
    return list(cast(list[Any], value)) if isinstance(value, list) else []


def _call(call: Any) -> Any:
    """A call as OpenAI writes it, its arguments as an object: servers parse them before
    the template sees them."""
    if not isinstance(call, Mapping):
        return call
    known = dict(cast(Mapping[str, Any], call))
    if "function" not in known and "name" in known:
        known = {"type": "function", "function": known}
    function = known.get("function")
    if isinstance(function, Mapping) and "arguments" in function:
        inner = cast(Mapping[str, Any], function)
        parsed = from_json(inner["arguments"])
        known["function"] = {
            **inner,
            "arguments": parsed if isinstance(parsed, Mapping) else inner["arguments"],
        }
    return known


def _tool(tool: Any) -> Any:
    """A function as OpenAI writes it; others leave out the frame."""
    tool = without_nulls(tool)
    if not isinstance(tool, Mapping) or "name" not in tool or "function" in tool:
        return tool
    return {"type": "function", "function": {key: value for key, value in tool.items() if key != "type"}}
