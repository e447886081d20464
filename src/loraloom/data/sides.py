"""The answers of a row of preferences, each as a row of prompt and completion.

So each gets the very tokens that it would have as an answer to learn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from loraloom.data.pairs import SIDES, earlier, is_conversation, prompt_and_answers
from loraloom.data.recognise import Recognised
from loraloom.data.table import Table
from loraloom.errors import DataError

_BESIDE = ("history", "system", "tools", "variables")
"""Roles that a row of prompt and completion has too."""
_NAMES = {
    "margin": "margin",
    "verdict": "label",
    "history": "history",
    "system": "system",
    "tools": "tools",
    "variables": "chat_template_kwargs",
}
"""Role -> the column that a row is written with where sources are mixed."""

Written = Callable[[Mapping[str, Any], Recognised], dict[str, Any]]


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
        learn="completion",
    )


def side(table: Table, recognised: Recognised, role: str) -> Table:
    """The rows with one of their answers, each as prompt and completion."""
    place = answers(recognised).index(role)
    return replace(table, rows=tuple(completions(row, recognised)[place] for row in table.rows))


def completions(row: Mapping[str, Any], recognised: Recognised) -> list[Mapping[str, Any]]:
    """The row once for each of its answers, as prompt and completion."""
    columns = recognised.columns
    prompt, said = prompt_and_answers(row, columns)
    # messages have their history among them already
    roles = [role for role in _BESIDE if role != "history" or isinstance(prompt, str)]
    beside = {columns[role]: row.get(columns[role]) for role in roles if role in columns}
    return [{**beside, "prompt": prompt, "completion": answer} for answer in said]


def written_alike(tables: Sequence[Table], kinds: Sequence[Recognised]) -> Written:
    """How the rows of several sources of preferences are written in one form: as messages, where any of
    them are messages.

    Raises:
        DataError: pairs and judged answers, or texts with and without prompts of their own, are mixed.
    """
    first = [
        table.rows[0][kind.columns[answers(kind)[0]]] for table, kind in zip(tables, kinds, strict=True)
    ]
    talks = [is_conversation(answer) for answer in first]
    bare = ["prompt" not in kind.columns and not talk for kind, talk in zip(kinds, talks, strict=True)]
    if len({kind.format for kind in kinds}) > 1 or any(bare) != all(bare):
        raise _of_several_kinds(tables, kinds, bare)

    def written(row: Mapping[str, Any], kind: Recognised) -> dict[str, Any]:
        columns = kind.columns
        prompt, said = prompt_and_answers(row, columns)
        beside = {name: row.get(columns[role]) for role, name in _NAMES.items() if role in columns}
        if any(talks):
            beside.pop("history", None)
        if all(bare):
            return {**{role: f"{prompt}{said[i]}" for i, role in enumerate(SIDES)}, **beside}
        if any(talks) and isinstance(prompt, str):
            prompt = [*earlier(row, columns), {"role": "user", "content": prompt}]
            said = tuple([{"role": "assistant", "content": str(answer)}] for answer in said)
        return {"prompt": prompt, **dict(zip(answers(kind), said, strict=True)), **beside}

    return written


def _of_several_kinds(
    tables: Sequence[Table], kinds: Sequence[Recognised], bare: Sequence[bool]
) -> DataError:
    told = [
        f"{table.source}: {'texts that begin with their prompt' if alone else kind.format}"
        for table, kind, alone in zip(tables, kinds, bare, strict=True)
    ]
    return DataError(
        "preferences of several kinds cannot be mixed",
        got="; ".join(told),
        need="all of them pairs, or all judged answers; and prompts beside the answers in all",
        next="write the rows of one as those of the other: prompt, chosen and rejected",
    )
