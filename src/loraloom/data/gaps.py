"""Rows that are still to be answered, read as if they were answered: so each prompt is
written as in training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from loraloom.config.asked import DataConfig
from loraloom.data.preferences import CHOSEN, REJECTED, VERDICTS
from loraloom.data.recognise import Recognised, recognise
from loraloom.data.table import Table
from loraloom.records import Task

ANSWERS = {"instruction": "output", "prompt": "completion", "question": "answer", "source": "target"}
"""Column with what is asked -> column with what follows."""
_JUDGED = (*CHOSEN, *REJECTED, *VERDICTS)
"""Columns with answers that were compared, and with what was said of them."""
BLANK = "..."
"""Stands for an answer. It is never read: only what comes before it is."""


def recognise_unanswered(
    table: Table, data: DataConfig, task: Task, *, encoder_decoder: bool = False, label: str = BLANK
) -> Recognised:
    """How rows are read that are filled by `filled`. Answers that they have are ignored.

    Args:
        table: rows with every column that there is.
        label: what is put for the class of each row; one that the head has.

    Raises:
        DataError: nothing in the rows is known to ask anything.
    """
    learn = "last" if {"messages", "conversations"} & set(table.columns) else "auto"
    asked = replace(
        data, label_column=data.label_column or "label" if task == "seq_cls" else None, learn=learn
    )
    recognised = recognise(
        filled(table, data, task, label), asked, task, encoder_decoder=encoder_decoder
    )
    return replace(recognised, notes=())  # columns that are not read are carried along


def recognise_scored(table: Table, data: DataConfig) -> Recognised:
    """How rows are read whose answers a reward model scores: pairs of answers, answers to prompts,
    conversations or texts. What was said of an answer (a label) is not read.

    Raises:
        DataError: nothing in the rows is known to be an answer.
    """
    known = set(table.columns)
    pairs = bool(known & {*CHOSEN} and known & {*REJECTED}) or data.format == "preference"
    task: Task = "reward" if pairs else "causal_lm"
    recognised = recognise(without_verdicts(table), data, task)
    return replace(recognised, task="reward", notes=())


def without_verdicts(table: Table) -> Table:
    """The rows without the columns that judge their answers."""
    rows = ({name: row[name] for name in row if name not in VERDICTS} for row in table.rows)
    return replace(table, rows=tuple(rows))


def filled(table: Table, data: DataConfig, task: Task, label: str = BLANK) -> Table:
    """The rows with something in each answer's place. Arguments as of `recognise_unanswered`."""
    return replace(table, rows=tuple(_filled(row, data, task, label) for row in table.rows))


def _filled(row: Any, data: DataConfig, task: Task, label: str) -> dict[str, Any]:
    if task == "seq_cls":
        return {**row, data.label_column or "label": label}
    found = {column: value for column, value in row.items() if column not in _JUDGED}
    for asked, answer in ANSWERS.items():
        if asked in found:
            found[answer] = (
                [{"role": "assistant", "content": BLANK}] if isinstance(found[asked], list) else BLANK
            )
    for column, role, said, own in (
        ("messages", "role", "content", "assistant"),
        ("conversations", "from", "value", "gpt"),
    ):
        turns: Any = found.get(column)
        if isinstance(turns, list) and turns and isinstance(turns[-1], dict):
            if turns[-1].get(role) in ("assistant", "gpt", "model"):
                turns = turns[:-1]
            keys = (role, said) if turns and role in turns[-1] else ("role", "content")
            found[column] = [*turns, {keys[0]: own if keys[0] == role else "assistant", keys[1]: BLANK}]
    return found
