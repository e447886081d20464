"""What one row says, whatever its format: a conversation, a (prompt, completion) pair, or a text.

Where a tokenizer has a chat template, instruction and question rows become conversations. Without one they take a
plain form, which is the same in training and in use:

    Instruction:            Question:           <source>
    <instruction>           <question>
                                                <target>
    Input:                  Answer:
    <input>                 <answer>

    Output:
    <output>

The prompt ends with the line break before the answer, so that no token spans prompt and answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

Message = dict[str, Any]
"""{"role": ..., "content": ...}, and whatever else a template reads."""

SHAREGPT_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
}
"""Speakers seen in ShareGPT files, and the roles that templates know."""


def conversation(row: Mapping[str, Any], format: str, columns: Mapping[str, str]) -> list[Message]:
    """The row as chat messages; `columns` maps a role of the format to the column that plays it."""
    if format in ("messages", "sharegpt"):
        return messages_of(row[columns["messages"]])
    if format == "prompt_completion":
        return [*messages_of(row[columns["prompt"]]), *messages_of(row[columns["completion"]])]
    asked, answer = _asked_and_answer(row, format, columns)
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]


def pair(row: Mapping[str, Any], format: str, columns: Mapping[str, str]) -> tuple[str, str]:
    """The row as prompt and completion, to be joined as they are."""
    if format == "prompt_completion":
        return row[columns["prompt"]], row[columns["completion"]]
    if format == "question_answer":
        return f"Question:\n{row[columns['question']]}\n\nAnswer:\n", row[columns["answer"]]
    if format == "source_target":
        return f"{row[columns['source']]}\n\n", row[columns["target"]]
    given = _input(row, columns)
    middle = f"Input:\n{given}\n\n" if given else ""
    return f"Instruction:\n{row[columns['instruction']]}\n\n{middle}Output:\n", row[columns["output"]]


def source_and_target(row: Mapping[str, Any], format: str, columns: Mapping[str, str]) -> tuple[str, str]:
    """The row for an encoder-decoder, which needs no separator between the two."""
    if format == "prompt_completion":
        return row[columns["prompt"]], row[columns["completion"]]
    return _asked_and_answer(row, format, columns)


def messages_of(value: Sequence[Mapping[str, Any]]) -> list[Message]:
    """OpenAI or ShareGPT entries as messages with plain text content."""
    return [_message(entry) for entry in value]


def _message(entry: Mapping[str, Any]) -> Message:
    if "from" in entry:
        return {"role": SHAREGPT_ROLES[entry["from"]], "content": entry["value"]}
    content = entry.get("content")
    if isinstance(content, list):
        content = "".join(part["text"] for part in cast(list[Mapping[str, str]], content))
    return {**entry, "content": content}


def _asked_and_answer(row: Mapping[str, Any], format: str, columns: Mapping[str, str]) -> tuple[str, str]:
    if format == "question_answer":
        return row[columns["question"]], row[columns["answer"]]
    if format == "source_target":
        return row[columns["source"]], row[columns["target"]]
    given = _input(row, columns)
    return row[columns["instruction"]] + (f"\n\n{given}" if given else ""), row[columns["output"]]


def _input(row: Mapping[str, Any], columns: Mapping[str, str]) -> str:
    return (row.get(columns["input"]) or "") if "input" in columns else ""
