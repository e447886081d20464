"""Prompts from a file: a text with one a line, or rows with a column that asks something."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loraloom.data.contents import inner_name, text_of
from loraloom.data.conversation import Message, is_talk, read_messages
from loraloom.data.load import load_table
from loraloom.data.readers import is_data
from loraloom.data.table import Table, listed
from loraloom.errors import DataError

COLUMNS = ("messages", "prompt", "question", "instruction", "source", "text")
"""Where a row has what it asks: the first of these that there is."""

Prompt = str | list[Message]
"""A text, or messages of which the last is to be answered."""


def read_prompts(path: str) -> tuple[list[Prompt], list[str]]:
    """The prompts of a file, and what of it is not used.

    Raises:
        DataError: it cannot be read, or a row asks nothing.
    """
    file = Path(path)
    if file.is_file() and (inner_name(file).suffix.lower() == ".txt" or not is_data(file)):
        try:
            lines = text_of(file).split("\n")
        except OSError as error:
            raise DataError(
                f"{path} cannot be read: {error.strerror or error}", next="check its permissions"
            ) from error
        found: list[Prompt] = [line.strip() for line in lines if line.strip()]
        return found, []
    table = load_table(path, split="test")
    column = next((name for name in COLUMNS if name in table.columns), None)
    if column is None:
        raise DataError(
            "no column is known to ask anything",
            where=table.source,
            got=f"the columns {listed(table.columns)}",
            need=f"one of {listed(COLUMNS)}",
            next="rename the column, or write one prompt a line into a .txt file",
        )
    unused = [name for name in table.columns if name != column]
    notes = [*table.notes, *([f"not used: {listed(unused)}"] if unused else [])]
    return [_prompt(row, column, table, number) for number, row in enumerate(table.rows)], notes


def _prompt(row: Mapping[str, Any], column: str, table: Table, number: int) -> Prompt:
    value = row.get(column)
    if isinstance(value, str) and value.strip() and not is_talk(value):
        return value
    messages = read_messages(value) if is_talk(value) else []
    if not messages or messages[-1]["role"] == "assistant":
        raise DataError(
            f"`{column}` of this row asks nothing",
            where=table.origin(number),
            got="an answer at its end" if messages else repr(value)[:60],
            need="a text, or messages of which the last is not the assistant's",
            next="repair or remove this row",
        )
    return messages
