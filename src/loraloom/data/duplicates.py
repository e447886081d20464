"""Rows that only repeat each other: nothing can be learnt from them, or measured on them."""

from __future__ import annotations

from loraloom.data.recognise import Recognised
from loraloom.data.said import key_of, turns
from loraloom.data.split import Splits
from loraloom.errors import DataError


def refuse_duplicates(splits: Splits, recognised: Recognised) -> None:
    """Say no where there is only one row, many times.

    Raises:
        DataError: all training rows say the same, or all rows of a held-out split say what rows of an
            earlier split say.
    """
    train = splits.train
    first = key_of(turns(train.rows[0], recognised)) if len(train) else ""
    if len(train) > 1 and all(key_of(turns(row, recognised)) == first for row in train.rows):
        raise DataError(
            f"all {len(train):,} training rows say the same",
            where=train.origin(0),
            need="rows that differ",
            next="check the file, and the columns that were recognised",
        )
    for each in splits.overlaps:
        if each.kind == "content" and each.rows == each.of:
            raise DataError(
                f"all {each.of:,} {each.split} rows say what rows of an earlier split say",
                where=splits.tables[each.split].source,
                got=each.sentence,
                need="rows that are not trained on: a score on these would say nothing",
                next=f"set `data.{'validation' if each.split == 'confirm' else each.split}` to another"
                " file, or to a share such as 0.1",
            )
