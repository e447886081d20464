"""Rows that say which of two answers is better, where answers are to be learnt: they are refused before
a worse answer is read as one to learn."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from loraloom.data.conversation import flag
from loraloom.data.table import Table, listed
from loraloom.errors import DataError

CHOSEN = ("chosen", "chosen_response", "response_chosen")
REJECTED = ("rejected", "rejected_response", "response_rejected")
VERDICTS = ("label", "labels", "preference", "is_good", "desirable", "kto_tag")
"""Columns in which KTO's rows say whether their answer is a good one."""

_WORDS = {
    "good": True,
    "bad": False,
    "desirable": True,
    "undesirable": False,
    "thumbs up": True,
    "thumbs down": False,
    "👍": True,
    "👎": False,
}


def verdict(value: Any) -> bool | None:
    """Whether an answer is called good: true or false, 0 or 1, or a word for either; None for anything
    else."""
    word = str(value).strip().casefold().replace("_", " ")
    return _WORDS.get(word, flag(value))


def refuse_preferences(
    table: Table, format: str | None, used: Collection[str], *, asked: bool, trainable: bool
) -> None:
    """Refuse rows that look like preference data, where answers are to be learnt.

    Args:
        format, used: what the rows would be read as, and its columns; None where no format fits them.
        asked: the format was asked for by name: an answer that stands beside a rejected
            one is meant to be learnt.
        trainable: whether the model can be trained on preferences.

    Raises:
        DataError: it says what they look like, and how to learn the good answers of them all the same.
    """
    if not asked and (rejected := _filled(table, ("rejected", "non_preferred"), used)):
        chosen = _filled(table, ("chosen",), used)
        ways = [_keep(table, chosen[0])] if chosen else []
        if format:
            ways.append(f"to learn what {format} reads ({listed(used)}): --set data.format={format}")
        ways = ways or ["write the better answers as the column `completion`, beside `prompt`"]
        raise DataError(
            f"these rows look like preference data: `{rejected[0]}` has the worse answer of a row",
            where=table.origin(0),
            got=f"the columns {listed(table.columns)}",
            need="answers to learn",
            next="; or ".join([*ways, *_train(table, "prompt, chosen, rejected", trainable)]),
        )
    for column in VERDICTS if format else ():
        bad = [] if column in used else _bad_rows(table, column)
        if bad:
            value = table.rows[bad[0]][column]
            program = f"select(.{column} == true) | del(.{column})" if value is False else ""
            command = _command(table, program)
            way = f"keep the rows whose `{column}` is true, without that column{command}"
            raise DataError(
                f"these rows look like preference data (KTO): `{column}` says whether the answer of a"
                " row is good",
                where=table.origin(bad[0]),
                got=f"{len(bad):,} of {len(table):,} rows whose `{column}` is {str(value).lower()}",
                need="good answers alone",
                next="; or ".join([way, *_train(table, "prompt, completion, label", trainable)]),
            )


def _filled(table: Table, words: Collection[str], used: Collection[str]) -> list[str]:
    """Columns called after one of these words that no format reads, and that have something in them."""
    names = [
        name
        for name in table.columns
        if name not in used and any(word in name.casefold() for word in words)
    ]
    return [name for name in names if any(row.get(name) not in (None, "") for row in table.rows)]


def _bad_rows(table: Table, column: str) -> Sequence[int]:
    """The rows that a column of verdicts calls bad; none where the column holds
    anything but verdicts."""
    found = {
        index: verdict(row[column])
        for index, row in enumerate(table.rows)
        if row.get(column) is not None
    }
    return [] if None in found.values() else [index for index, good in found.items() if not good]


def _train(table: Table, columns: str, trainable: bool) -> list[str]:
    """How to train on the preferences instead, where that can be."""
    named = set(columns.split(", ")) <= set(table.columns)
    needed = "" if named else f", with the columns {columns}"
    return [f"train on the preferences: task: preference{needed}"] if trainable else []


def _keep(table: Table, column: str) -> str:
    """How to make rows of the better answers."""
    first = table.rows[0]
    whole = isinstance(first.get(column), list) and not isinstance(first.get("prompt"), list)
    role = "messages" if whole else "completion"
    program = f"{{messages: .{column}}}" if whole else f"{{prompt, completion: .{column}}}"
    rest = "" if whole else " beside `prompt`"
    return (
        f"to learn the better answers, write `{column}` as the column `{role}`{rest},"
        f" alone{_command(table, program)}"
    )


def _command(table: Table, program: str) -> str:
    """The same as a command, where the rows stand one a line."""
    return (
        f": jq -c '{program}' {table.source} > good.jsonl"
        if program and table.source.endswith(".jsonl")
        else ""
    )
