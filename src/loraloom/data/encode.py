"""From tables to rows of token ids with their label masks; and how to show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from loraloom.data.causal import causal_rows
from loraloom.data.classes import Classes, Known, classes_of, count_labels, doubtful
from loraloom.data.forms import source_and_target
from loraloom.data.preference_rows import one_each, preference_rows
from loraloom.data.recognise import Recognised
from loraloom.data.rows import (
    IGNORED,
    Encoded,
    Example,
    Judged,
    Pair,
    Row,
    SplitReport,
    report_of,
    told_apart,
)
from loraloom.data.scored_rows import LABEL_NAMES, scored_rows
from loraloom.data.split import Splits, labels_of
from loraloom.data.table import Table, once
from loraloom.data.tokens import Frame, Tokenizer, document_end, frame_of, ids_of
from loraloom.errors import DataError
from loraloom.records import COMPARED, Task

__all__ = ["Encoded", "Example", "Judged", "Pair", "Row", "SplitReport", "encode", "preview"]


def encode(
    splits: Splits,
    recognised: Recognised,
    tokenizer: Tokenizer,
    task: Task | None = None,
    known: Known | None = None,
    also: Sequence[str] = (),
) -> Encoded:
    """Encode every split, at full length: `Encoded.cut` shortens.

    Args:
        splits: tables that `recognise.check` has passed.
        recognised: their format and columns.
        tokenizer: of the base model.
        task: what the rows are for, if not `recognised.task`.
        known: the classes in the order of the head's outputs, where the model or the adapter says it.
        also: classes that training rows have beside those of `splits`.

    Raises:
        ModelError: the data are conversations and the tokenizer has no chat template.
        TemplateError: the template refuses a row.
        DataError: no row of a split has anything to be trained on, or a label is none
            of the known classes.
    """
    task = task or recognised.task
    frame = frame_of(tokenizer)
    classes = _classes(splits, recognised, known, also) if task == "seq_cls" else None
    rows: dict[str, tuple[Example, ...]] = {}
    dropped: dict[str, int] = {}
    language, found = _language(splits, recognised, tokenizer, task)
    for name, table in splits.tables.items():
        encoded = (
            language[name] if language else _encode_table(table, recognised, tokenizer, frame, classes)
        )
        # Before rows are dropped: clusters are found by a row's place in the table.
        encoded = _in_clusters(encoded, splits.groups.get(name, ()), table.parts)
        rows[name] = tuple(row for row in encoded if row.supervised)
        dropped[name] = len(encoded) - len(rows[name])
        if len(table) and not rows[name]:
            raise _nothing_to_learn(name, table, recognised)
    kept, repeated = told_apart(rows, task, splits.given)
    same = {name: len(rows[name]) - len(kept[name]) for name in rows}
    alike = [
        f"{count:,} {name} rows are token for token the same as rows of an earlier split, and are"
        " left out"
        for name, count in same.items()
        if count
    ]
    closing = document_end(tokenizer, frame) if task == "seq2seq_lm" else frame.closing
    return Encoded(
        **kept,
        task=task,
        format=recognised.format,
        label_names=_label_names(task, classes),
        report={name: report_of(kept[name], dropped=dropped[name], same=same[name]) for name in kept},
        given=splits.given,
        # Counted by text and by tokens: either count may see a repeat that the other misses.
        repeated={
            name: max(splits.repeated.get(name, 0), repeated.get(name, 0))
            for name in splits.repeated | repeated
        },
        overlaps=tuple(each for each in splits.overlaps if each.kind != "content"),
        notes=once([*_notes(splits, recognised, classes, found), *splits.notes, *alike]),
        closing=() if language and task != "reward" else closing,
    )


def _language(
    splits: Splits, recognised: Recognised, tokenizer: Tokenizer, task: Task
) -> tuple[Mapping[str, Sequence[Example]], list[str]]:
    """The rows of each split that a decoder reads, and notes on them; nothing for other tasks."""
    if task == "causal_lm":
        return causal_rows(splits.tables, recognised, tokenizer)
    if task == "reward" and recognised.format != "preference":
        rows, notes = scored_rows(splits.tables, recognised, tokenizer)
        return {name: one_each(rows[name], table) for name, table in splits.tables.items()}, notes
    if task in COMPARED:
        return preference_rows(splits.tables, recognised, tokenizer)
    return {}, []


def _label_names(task: Task, classes: Classes | None) -> tuple[str, ...] | None:
    if task == "reward":
        return LABEL_NAMES
    return classes.names if classes else None


def _nothing_to_learn(split: str, table: Table, recognised: Recognised) -> DataError:
    pairs = recognised.format == "preference"
    return DataError(
        f"no {split} row of {table.source} has anything to be trained on",
        got=f"{len(table):,} rows read as {recognised.format}, "
        + (
            "in each of them two answers that are the same to the model, or an empty one"
            if pairs
            else "each without a supervised token"
        ),
        need="two answers that differ"
        if pairs
        else "assistant turns, completions or text that are not empty",
        next="; ".join(note for note in recognised.notes if "learnt" in note)
        or "check the columns and the roles of the rows",
    )


def _in_clusters(rows: Sequence[Example], groups: Sequence[int], parts: Sequence[str]) -> list[Example]:
    """Rows with the number of the group that their row of the table is in; without
    groups, with what they are cut from. And with their row's source, where there are several."""
    owners = [number if row.cluster < 0 else row.cluster for number, row in enumerate(rows)]
    return [
        replace(
            row,
            cluster=groups[owner] if groups else owner,
            source=parts[owner] if parts else row.source,
        )
        for row, owner in zip(rows, owners, strict=True)
    ]


def _encode_table(
    table: Table, recognised: Recognised, tokenizer: Tokenizer, frame: Frame, classes: Classes | None
) -> list[Row]:
    form, columns = recognised.format, recognised.columns
    if not len(table):
        return []
    if classes is not None:
        texts = [row[columns["text"]] for row in table.rows]
        labels = [recognised.label(row) for row in table.rows]
        numbers = [IGNORED if label is None else classes.numbers[label] for label in labels]
        return [
            Row(_framed(ids, frame), np.array([number], dtype=np.int32))
            for ids, number in zip(ids_of(texts, tokenizer), numbers, strict=True)
        ]
    return _translations([source_and_target(row, form, columns) for row in table.rows], tokenizer, frame)


def _translations(pairs: Sequence[tuple[str, str]], tokenizer: Tokenizer, frame: Frame) -> list[Row]:
    closing = document_end(tokenizer, frame)
    sources = ids_of([source for source, _ in pairs], tokenizer)
    targets = ids_of([target for _, target in pairs], tokenizer)
    rows: list[Row] = []
    for source, target in zip(sources, targets, strict=True):
        labels = [*frame.opening, *target, *closing] if target else []
        rows.append(Row(_framed(source, frame), np.array(labels, dtype=np.int32)))
    return rows


def _framed(ids: Sequence[int], frame: Frame) -> np.ndarray[Any, np.dtype[np.int32]]:
    return np.array([*frame.opening, *ids, *frame.closing], dtype=np.int32)


def _classes(
    splits: Splits, recognised: Recognised, known: Known | None, also: Sequence[str]
) -> Classes:
    labels = {*labels_of(splits.train, recognised), *also}
    return classes_of(labels, known, _words(splits.train, recognised))


def _words(train: Table, recognised: Recognised) -> dict[str, str]:
    """Label -> what it is called in a column beside it ("label_text", "label_name"),
    where that says the same in every row."""
    column = recognised.columns["label"]
    for beside in (f"{column}_text", f"{column}_name"):
        if beside not in train.columns:
            continue
        said: dict[str, set[str]] = {}
        for row in train.rows:
            if (label := recognised.label(row)) is not None:
                said.setdefault(label, set()).add(str(row.get(beside)))
        words = {label: next(iter(each)) for label, each in said.items() if len(each) == 1}
        if len(set(words.values())) == len(said):
            return words
    return {}


def _notes(
    splits: Splits, recognised: Recognised, classes: Classes | None, found: Sequence[str]
) -> tuple[str, ...]:
    """`found` while encoding, after what was found before."""
    notes = [
        *(note for table in splits.tables.values() for note in table.notes),
        *recognised.notes,
        *found,
    ]
    if classes is not None:
        counts = count_labels(
            recognised.label(row) for table in splits.tables.values() for row in table.rows
        )
        notes += [*([classes.note] if classes.note else []), *doubtful(counts)]
    return once(notes)


Pieces = list[tuple[str, bool]]
"""A row in pieces: a text, and whether it is learnt."""


def preview(encoded: Encoded, tokenizer: Tokenizer, n: int = 3) -> list[Pieces]:
    """The first `n` training rows as (text of a token, whether it is supervised), for a coloured print.

    The texts of a row join to what the model reads. A class or a target follows as supervised pieces of
    its own. The answers of a pair stand behind their prompt, each with the name of its side.
    """
    return [_shown(example, encoded, tokenizer) for example in encoded.train[:n]]


def _shown(example: Example, encoded: Encoded, tokenizer: Tokenizer) -> Pieces:
    if isinstance(example, Pair):
        return _answers(example.sides, ("chosen", "rejected"), tokenizer)
    if isinstance(example, Judged):
        return _answers(example.sides, ("good" if example.good else "bad",), tokenizer)
    pieces = _pieces(example.input_ids.tolist(), tokenizer)
    if encoded.task == "causal_lm":
        return list(zip(pieces, (example.labels != IGNORED).tolist(), strict=True))
    if encoded.task == "seq_cls":
        number = int(example.labels[0])
        answer = [encoded.label_names[number] if encoded.label_names else str(number)]
    else:
        answer = _pieces(example.labels.tolist(), tokenizer)
    return [*((piece, False) for piece in pieces), *((piece, True) for piece in answer)]


def _answers(sides: Sequence[Row], names: Sequence[str], tokenizer: Tokenizer) -> Pieces:
    """The prompt once, and behind it each answer on a line of its own."""
    learnt = [side.labels != IGNORED for side in sides]
    given = min(int(np.argmax(marks)) for marks in learnt)
    found = [(piece, False) for piece in _pieces(sides[0].input_ids[:given].tolist(), tokenizer)]
    for name, side, marks in zip(names, sides, learnt, strict=True):
        ids = side.input_ids.tolist()
        pieces = _pieces(ids, tokenizer)
        ended = "".join(piece for piece, _ in found).endswith("\n")
        found.append((f"{name}: " if ended else f"\n{name}: ", False))
        found += list(zip(pieces, marks.tolist(), strict=True))[given:]
    return found


def _pieces(ids: Sequence[int], tokenizer: Tokenizer) -> list[str]:
    """The text that each token adds. Bytes of one character come out with the token
    that completes it."""
    pieces: list[str] = []
    before = ""
    for end in range(1, len(ids) + 1):
        text = str(
            tokenizer.decode(ids[:end], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        )
        if text.endswith("\ufffd") and end < len(ids):
            pieces.append("")
            continue
        pieces.append(text[len(before) :])
        before = text
    return pieces
