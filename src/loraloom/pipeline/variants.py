"""Changed copies of the training rows, encoded once for all candidates; each candidate's order takes its
own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loraloom.config import names
from loraloom.data.augment import (
    LEARN_PROMPT,
    Augmentation,
    AugmentedOrder,
    augmented,
    with_prompt_learnt,
)
from loraloom.data.batches import RowOrder
from loraloom.data.recognise import Recognised
from loraloom.data.rows import Encoded, Row
from loraloom.data.table import Table
from loraloom.errors import DataError
from loraloom.records import Candidate
from loraloom.train.seat import OrderOf

COPIES = 4
"""Changed copies of a row at most: epochs differ, and the rows still fit into memory."""


@dataclass(frozen=True)
class Variants:
    """The copies that one augmentation makes.

    Attributes:
        rows: all copies, one draw after the other.
        numbers: [training rows, copies], places in `rows`; -1 where a row has no copy in that draw.
    """

    augmentation: Augmentation
    rows: tuple[Row, ...]
    numbers: NDArray[np.int64]


def variants_of(
    asked: Sequence[Augmentation],
    recognised: Recognised,
    table: Table,
    tokenizer: Any,
    encode: Callable[[Table], Encoded],
    whole: Encoded,
    *,
    length: int,
    epochs: float,
    seed: int,
) -> tuple[Variants, ...]:
    """Rows of each augmentation that is asked for.

    Args:
        table: the training rows.
        encode: gives a table's rows as token ids, as `whole` was made.
        whole: the data at full length.
        length: tokens of a row at most: a longer copy is left out, and never cut.
        epochs: of the plan: a copy for each, as far as there may be so many.
        seed: of the changes.

    Raises:
        DataError: one that would change what is learnt.
    """
    kept = _kept(whole, length)
    special = frozenset({*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder})
    marks = [str(mark) for mark in tokenizer.all_special_tokens if str(mark).strip()]
    found: list[Variants] = []
    for number, one in enumerate(asked):
        copies = min(COPIES, max(1, math.ceil(epochs)))
        if one.kind == LEARN_PROMPT:
            draws = [[with_prompt_learnt(row, special) for row in _rows(whole)]]
        else:
            seeds = (seed * 1000 + 100 * number + copy for copy in range(copies))
            tables = (augmented(table, recognised, one.kind, each, marks) for each in seeds)
            draws = [_rows(encode(each)) for each in tables]
        found.append(_variants(one, draws, whole, kept, length))
    return tuple(found)


def augmented_orders(plain: OrderOf, variants: Sequence[Variants], rows_before: int) -> OrderOf:
    """Each candidate's order, with the copies that its `data.augment` names in the places of some rows.

    Args:
        plain: the order of the rows as they are.
        rows_before: how many rows stand before the copies, which lie behind them, kind after kind.
    """
    tables: Mapping[str, tuple[NDArray[np.int64], float]] = {}
    start = rows_before
    for one in variants:
        numbers = np.where(one.numbers < 0, -1, one.numbers + start)
        # Rows that are replayed stand behind the task's own, and have no copies.
        numbers = np.pad(numbers, ((0, rows_before - len(numbers)), (0, 0)), constant_values=-1)
        tables = {**tables, one.augmentation.name: (numbers, one.augmentation.share)}
        start += len(one.rows)

    def order(candidate: Candidate) -> RowOrder:
        own = plain(candidate)
        chosen = tables.get(str(candidate.params.get(names.AUGMENT)))
        return own if chosen is None else AugmentedOrder(own, *chosen, candidate.training.seed)

    return order


def _kept(whole: Encoded, length: int) -> list[int]:
    """The training rows, by their places in `whole`, that are left once all are cut."""
    placed = tuple(replace(row, cluster=place) for place, row in enumerate(whole.train))
    cut = replace(whole, train=placed, validation=(), confirm=(), test=()).cut(length)
    return [row.cluster for row in cut.train]


def _rows(data: Encoded) -> list[Row]:
    return [row for row in data.train if isinstance(row, Row)]


def _variants(
    one: Augmentation, draws: Sequence[Sequence[Row]], whole: Encoded, kept: Sequence[int], length: int
) -> Variants:
    rows: list[Row] = []
    numbers = np.full((len(kept), len(draws)), -1, dtype=np.int64)
    for draw, made in enumerate(draws):
        if len(made) != len(whole.train):
            raise DataError(
                f"{one.kind} makes {len(made):,} rows of {len(whole.train):,}",
                need="one for each row",
                next=f"leave {one.kind} out of `data.augment`",
            )
        for place, number in enumerate(kept):
            row = made[number]
            if max(len(row.input_ids), len(row.labels)) <= length:
                numbers[place, draw] = len(rows)
                rows.append(row)
    return Variants(one, tuple(rows), numbers)
