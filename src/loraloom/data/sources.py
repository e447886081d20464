"""The training rows of a request: one source, or several that may each have a format of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from loraloom.config.asked import DataConfig
from loraloom.config.sources import mixed_sources
from loraloom.data.forms import conversation, pair, source_and_target
from loraloom.data.load import as_one, load_table, load_tables, sample
from loraloom.data.recognise import Recognised, recognise
from loraloom.data.sides import Written, written_alike
from loraloom.data.table import Table
from loraloom.errors import DataError
from loraloom.records import COMPARED, Task

HasTemplate = Callable[[], bool]
"""Whether the tokenizer has a chat template; asked only where formats differ."""

_TALKS = ("messages", "sharegpt")


def load_training(
    data: DataConfig,
    task: Task | Literal["auto"],
    has_template: HasTemplate,
    *,
    split: str = "train",
    encoder_decoder: bool,
    seed: int,
) -> tuple[Table, Recognised]:
    """The rows of `data.train`, and what they are. Where sources are mixed, each row has the name of its
    own (`Table.parts`); where they have several formats, all are written in one.

    Raises:
        ConfigError: the sources cannot be mixed as asked.
        DataError: nothing is there, it cannot be read, or the sources are for different tasks.
    """
    train = data.train_names or ()
    mixed = mixed_sources(data)
    if mixed:
        tables = [_part(load_table(one.source, split=split), one.name or "") for one in mixed]
        notes: list[str] = []
    else:
        tables, notes = load_tables(train, split=split)
    kinds = [*_kinds(tables, data, task, encoder_decoder, strict=bool(mixed))]
    if any((one.format, one.columns) != (kinds[0].format, kinds[0].columns) for one in kinds):
        tables = _in_one_form(tables, kinds, has_template)
        notes.append(
            "; ".join(
                f"{table.source} is read as {kind.format}"
                for table, kind in zip(tables, kinds, strict=True)
            )
        )
        data = replace(data, format="auto", text_column=None, label_column=None)
    table = sample(as_one(train, tables, notes), data.max_rows, seed)
    return table, recognise(table, data, task, encoder_decoder=encoder_decoder)


def _part(table: Table, name: str) -> Table:
    return replace(table, parts=(name,) * len(table))


def _kinds(
    tables: Sequence[Table],
    data: DataConfig,
    task: Task | Literal["auto"],
    encoder_decoder: bool,
    *,
    strict: bool,
) -> list[Recognised]:
    """What each of several tables is by itself; nothing where all have the same columns. Where one is
    nothing by itself, `strict` says so; else they are read as one."""
    if len({table.columns for table in tables}) < 2:
        return []
    try:
        return [recognise(table, data, task, encoder_decoder=encoder_decoder) for table in tables]
    except DataError:
        if strict:
            raise
        return []


def _in_one_form(
    tables: Sequence[Table], kinds: Sequence[Recognised], has_template: HasTemplate
) -> list[Table]:
    """The tables with all rows written in one format.

    Raises:
        DataError: they are for different tasks, or raw text is among conversations.
    """
    formats = [kind.format for kind in kinds]
    if len({kind.task for kind in kinds}) > 1 or ("text" in formats and len(set(formats)) > 1):
        raise DataError(
            "the sources of one run are for one task, and these are not",
            got="; ".join(
                f"{table.source}: {kind.format} for {kind.task}"
                for table, kind in zip(tables, kinds, strict=True)
            ),
            need="all with labels, all raw text, or all with prompts and answers",
            next=(
                'write the rows of one as the others: {"text": ..., "label": ...}, {"text": ...} or'
                ' {"prompt": ..., "completion": ...}'
            ),
        )
    written = (
        written_alike(tables, kinds)
        if kinds[0].task in COMPARED
        else _writer(kinds[0].task, formats, has_template)
    )
    return [
        replace(
            table,
            rows=tuple({**_unread(row, kind), **written(row, kind)} for row in table.rows),
        )
        for table, kind in zip(tables, kinds, strict=True)
    ]


def _unread(row: Mapping[str, Any], kind: Recognised) -> dict[str, Any]:
    """The columns that play no role: rows may be grouped by them."""
    return {name: value for name, value in row.items() if name not in kind.columns.values()}


def _writer(task: Task, formats: Sequence[str], has_template: HasTemplate) -> Written:
    """How a row is written in the one format that all sources can have."""
    if task == "seq_cls":
        return lambda row, kind: {"text": row[kind.columns["text"]], "label": kind.label(row)}
    if task == "seq2seq_lm":
        return _as_translation
    if "text" in formats:
        return lambda row, kind: {"text": row[kind.columns["text"]]}
    if has_template() or any(form in _TALKS for form in formats):
        return _as_messages
    return _as_pair


def _as_translation(row: Mapping[str, Any], kind: Recognised) -> dict[str, Any]:
    source, target = source_and_target(row, kind.format, kind.columns)
    return {"source": source, "target": target}


def _as_pair(row: Mapping[str, Any], kind: Recognised) -> dict[str, Any]:
    prompt, completion = pair(row, kind)
    return {"prompt": prompt, "completion": completion}


def _as_messages(row: Mapping[str, Any], kind: Recognised) -> dict[str, Any]:
    """A conversation; an answer that is not learnt says so by its weight."""
    talk = conversation(row, kind)
    messages = [
        {**message, "weight": 0} if message["role"] == "assistant" and not learnt else {**message}
        for message, learnt in zip(talk.messages, talk.learnt, strict=True)
    ]
    beside = {"tools": list(talk.tools), "chat_template_kwargs": dict(talk.variables)}
    return {"messages": messages, **{name: value for name, value in beside.items() if value}}
