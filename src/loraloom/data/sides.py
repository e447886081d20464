"""The answers of a row of preferences, each as a row of prompt and completion.

So each gets the very tokens that it would have as an answer to learn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from loraloom.data.pairs import SIDES, prompt_and_answers
from loraloom.data.recognise import Recognised
from loraloom.data.table import Table

_BESIDE = ("system", "tools", "variables")
"""Roles that a row of prompt and completion has too."""


def answers(recognised: Recognised) -> tuple[str, ...]:
    """The roles whose columns hold the answers of a row."""
    return SIDES if recognised.format == "preference" else ("completion",)


def as_completions(recognised: Recognised) -> Recognised:
    """How the rows of `side` are read: as prompt and completion."""
    beside = {role: column for role, column in recognised.columns.items() if role in _BESIDE}
    return replace(
        recognised,
        format="prompt_completion",
        task="causal_lm",
        columns={"prompt": "prompt", "completion": "completion", **beside},
    )


def side(table: Table, recognised: Recognised, role: str) -> Table:
    """The rows with one of their answers, each as prompt and completion."""
    place = answers(recognised).index(role)
    return replace(table, rows=tuple(completions(row, recognised)[place] for row in table.rows))


def completions(row: Mapping[str, Any], recognised: Recognised) -> list[Mapping[str, Any]]:
    """The row once for each of its answers, as prompt and completion."""
    columns = recognised.columns
    beside = {columns[role]: row.get(columns[role]) for role in _BESIDE if role in columns}
    prompt, said = prompt_and_answers(row, columns)
    return [{**beside, "prompt": prompt, "completion": answer} for answer in said]
