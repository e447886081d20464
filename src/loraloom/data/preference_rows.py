"""Pairs of answers, and answers that were judged, as rows of token ids.

Each answer is encoded as an answer to learn would be (`causal_rows`; of a reward model `scored_rows`):
through the chat template where there is one, else joined to its prompt, with the end of the document
behind it. What is compared begins where that row is learnt, or before it where the tokens of the two
sides part already: an answer may grow into the last token of its prompt.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from loraloom.data.causal import causal_rows
from loraloom.data.joined import shared_tokens
from loraloom.data.pairs import is_conversation
from loraloom.data.preference_notes import pair_notes
from loraloom.data.preferences import verdict
from loraloom.data.recognise import Recognised
from loraloom.data.rows import IGNORED, Judged, Pair, Row
from loraloom.data.scored_rows import scored_rows
from loraloom.data.sides import answers, as_completions, side
from loraloom.data.table import Table, once
from loraloom.data.tokens import Tokenizer
from loraloom.data.unused import rows_of
from loraloom.errors import DataError

_NOTHING = Row(np.zeros(0, np.int32), np.zeros(0, np.int32))
"""In place of an answer that is not learnt."""

Tables = Mapping[str, Table]


def preference_rows(
    tables: Tables, recognised: Recognised, tokenizer: Tokenizer
) -> tuple[dict[str, list[Pair]] | dict[str, list[Judged]], list[str]]:
    """The pairs, or the judged answers, of each split, and what a person should know of how they were
    read. A pair of which nothing can be learnt has no supervised token.

    Errors as in `encode`.
    """
    sides: list[dict[str, list[Row]]] = []
    notes: list[str] = []
    own = tokenizer_of(tables["train"], recognised, tokenizer)
    for role in answers(recognised):
        shown = {name: side(table, recognised, role) for name, table in tables.items()}
        read = as_completions(recognised)
        if recognised.task == "reward":
            rows, found = scored_rows(shown, read, own, one_text=own is not tokenizer)
        else:
            rows, found = causal_rows(shown, read, own)
        sides.append({name: one_each(rows[name], shown[name]) for name in tables})
        notes += found
    if recognised.format == "kto":
        (judged,) = sides
        column = recognised.columns["verdict"]
        return {
            name: [
                Judged(row, bool(verdict(source[column])))
                for row, source in zip(judged[name], table.rows, strict=True)
            ]
            for name, table in tables.items()
        }, notes
    chosen, rejected = sides
    column = recognised.columns.get("margin", "")
    pairs = {
        name: [
            _pair(one, other, float(source.get(column) or 0.0))
            for one, other, source in zip(chosen[name], rejected[name], table.rows, strict=True)
        ]
        for name, table in tables.items()
    }
    with_margin = sum(bool(source.get(column)) for table in tables.values() for source in table.rows)
    if with_margin and recognised.task != "reward":
        notes.append(
            f"`{column}` is not used ({rows_of(with_margin)}): no loss of preferences asks by how much"
            " an answer is better"
        )
    return pairs, [*once(notes), *pair_notes(pairs["train"])]


def tokenizer_of(train: Table, recognised: Recognised, tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer that encodes these rows: without its chat template where a prompt is the beginning
    of a text, which has marks of turns of its own."""
    if "prompt" in recognised.columns or not len(train):
        return tokenizer
    if is_conversation(train.rows[0][recognised.columns["chosen"]]):
        return tokenizer
    plain = copy.copy(tokenizer)
    plain.chat_template = None  # pyright: ignore[reportAttributeAccessIssue]
    return plain


def one_each(rows: Sequence[Row], table: Table) -> list[Row]:
    """One row for each of the table; an answer that is left out of what is learnt is an empty row.

    Raises:
        DataError: the template makes several rows of one answer.
    """
    found: dict[int, Row] = {}
    for number, row in enumerate(rows):
        owner = number if row.cluster < 0 else row.cluster
        if owner in found:
            raise DataError(
                "the chat template writes earlier turns anew, so that these answers are not one text",
                where=table.origin(owner),
                got="several turns of the assistant in one answer",
                need="one turn of the assistant in each answer",
                next="write the turns before the last into the prompt",
            )
        found[owner] = row
    return [found.get(number, _NOTHING) for number in range(len(table))]


def _pair(chosen: Row, rejected: Row, margin: float) -> Pair:
    """Both sides with what they share marked as given."""
    if not chosen.supervised or not rejected.supervised:
        return Pair(chosen, rejected, margin)
    start = min(_first(chosen), _first(rejected), shared_tokens(chosen.input_ids, rejected.input_ids))
    return Pair(_learnt_from(chosen, start), _learnt_from(rejected, start), margin)


def _learnt_from(row: Row, start: int) -> Row:
    """The row with the tokens between `start` and its first label learnt too."""
    first = _first(row)
    if start >= first:
        return row
    labels = row.labels.copy()
    labels[max(1, start) : first] = row.input_ids[max(1, start) : first]
    return replace(row, labels=labels)


def _first(row: Row) -> int:
    return int(np.argmax(row.labels != IGNORED))
