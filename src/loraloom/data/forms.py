"""What one row says, whatever its format: a conversation, a (prompt, completion) pair, or a text.

Where a tokenizer has a chat template, instruction and question rows become conversations. Without one
they take a plain form, which is the same in training and in use:

    Instruction:            Question:           <source>
    <instruction>           <question>
                                                <target>
    Input:                  Answer:
    <input>                 <answer>

    Output:
    <output>

A system text comes first, earlier turns before the last, each in the same form. The prompt ends with the
line break before the answer, so that no token spans prompt and answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from loraloom.data.conversation import (
    Conversation,
    Message,
    entries,
    flags_of,
    from_json,
    is_talk,
    own_tools,
    pairs_of,
    read_messages,
    read_tools,
    says_something,
)
from loraloom.data.form_template import in_form
from loraloom.data.recognise import Recognised


def conversation(row: Mapping[str, Any], recognised: Recognised) -> Conversation:
    """The row as a conversation, and which of its turns are learnt: those that `Recognised.learn` names.

    auto: what the rows say. That is every answer; of prompt and completion, the completion. An answer
    whose flag says no (weight 0, train false) is never learnt.
    """
    form, columns = recognised.format, recognised.columns
    said, given = _said(row, form, columns)
    messages = read_messages(said)
    system = row.get(columns["system"]) if "system" in columns else None
    opening: list[Message] = (
        [{"role": "system", "content": system}] if system and not _has_system(messages) else []
    )
    tools = row.get(columns["tools"]) if "tools" in columns else None
    if not tools and (tools := own_tools(said)):
        messages = [
            {key: value for key, value in message.items() if key != "tools"} for message in messages
        ]
    variables = from_json(row.get(columns["variables"])) if "variables" in columns else None
    return Conversation(
        messages=(*opening, *messages),
        learnt=(
            *(False for _ in opening),
            *_learnt(messages, said, given, recognised, first=len(opening)),
        ),
        tools=read_tools(tools),
        variables=variables or {},
    )


def _said(
    row: Mapping[str, Any], form: str, columns: Mapping[str, str]
) -> tuple[Sequence[Mapping[str, Any]], int]:
    """All entries of a row, and how many of them are only given where a completion
    stands apart (0: none does)."""
    if form in ("messages", "sharegpt"):
        return entries(row[columns["messages"]]), 0
    if form == "prompt_completion" and is_talk(row[columns["prompt"]]):
        prompt, completion = entries(row[columns["prompt"]]), entries(row[columns["completion"]])
        return [*prompt, *completion], len(prompt)
    earlier = [
        {"role": role, "content": text}
        for pair in _history(row, columns)
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]
    asked, answer = _asked_and_answer(row, form, columns)
    return [*earlier, {"role": "user", "content": asked}, {"role": "assistant", "content": answer}], 0


def _learnt(
    messages: Sequence[Message],
    said: Sequence[Mapping[str, Any]],
    given: int,
    recognised: Recognised,
    *,
    first: int,
) -> list[bool]:
    """For each message, whether it is learnt. `first` messages stand before them."""
    answers = [
        i for i, message in enumerate(messages) if message["role"] == "assistant" and i + first > 0
    ]
    if recognised.learn == "last":
        answers = answers[-1:]
    elif recognised.learn == "completion":
        asked = max((i for i, message in enumerate(messages) if message["role"] == "user"), default=-1)
        answers = [i for i in answers if i >= (given or asked)]
    elif recognised.learn == "auto":
        answers = [i for i in answers if i >= given]
    answers = [i for i in answers if says_something(messages[i]) and all(flags_of(said[i]).values())]
    return [i in answers for i in range(len(messages))]


def pair(row: Mapping[str, Any], recognised: Recognised) -> tuple[str, str]:
    """The row as prompt and completion, to be joined as they are."""
    form, columns = recognised.format, recognised.columns
    before = "".join(in_form(form, asked) + answer + "\n\n" for asked, answer in _history(row, columns))
    if "system" in columns and row.get(columns["system"]):
        before = f"{row[columns['system']]}\n\n{before}"
    asked, answer = _asked_and_answer(row, form, columns)
    if form == "alpaca" and (given := _input(row, columns)):
        asked = f"{row[columns['instruction']]}\n\nInput:\n{given}"
    return before + in_form(form, asked), answer


def source_and_target(
    row: Mapping[str, Any], format: str, columns: Mapping[str, str]
) -> tuple[str, str]:
    """The row for an encoder-decoder, which needs no separator between the two."""
    return _asked_and_answer(row, format, columns)


def _has_system(messages: Sequence[Message]) -> bool:
    return any(message["role"] in ("system", "developer") for message in messages)


def _history(row: Mapping[str, Any], columns: Mapping[str, str]) -> list[tuple[str, str]]:
    return list(pairs_of(row.get(columns["history"]))) if "history" in columns else []


def _asked_and_answer(
    row: Mapping[str, Any], format: str, columns: Mapping[str, str]
) -> tuple[str, str]:
    if format == "prompt_completion":
        return row[columns["prompt"]], row[columns["completion"]]
    if format == "question_answer":
        return row[columns["question"]], row[columns["answer"]]
    if format == "source_target":
        return row[columns["source"]], row[columns["target"]]
    given = _input(row, columns)
    return row[columns["instruction"]] + (f"\n\n{given}" if given else ""), row[columns["output"]]


def _input(row: Mapping[str, Any], columns: Mapping[str, str]) -> str:
    return (row.get(columns["input"]) or "") if "input" in columns else ""
