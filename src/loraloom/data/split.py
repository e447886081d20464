"""Train, validation, confirm and test: seeded, stratified, and without a row that stands on two sides.

Validation is what a search may look at. Confirm, a half of a large validation split, is kept for the finalists;
test is for the winner alone.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from loraloom.data.classes import shown, sort_labels
from loraloom.data.load import load_table
from loraloom.data.recognise import Recognised, check
from loraloom.data.table import Table, listed
from loraloom.errors import ConfigError, DataError

CONFIRM_FROM = 400
"""Validation splits from this many rows on give half of them to confirm: 200 rows put the standard error of an
accuracy near 3 points, and less would tell finalists no longer apart."""

Split = float | str | tuple[str, ...] | None
"""A share of train, one source or several, or no such split."""
NO_ROWS = Table("none")


@dataclass(frozen=True)
class Splits:
    """Four disjoint tables; one that was not asked for is empty."""

    train: Table
    validation: Table = NO_ROWS
    confirm: Table = NO_ROWS
    test: Table = NO_ROWS
    repeated: Mapping[str, int] = field(default_factory=dict[str, int])
    """Split -> its rows whose content stands in another split too; only tables given apart can have any."""

    @property
    def tables(self) -> dict[str, Table]:
        return {"train": self.train, "validation": self.validation, "confirm": self.confirm, "test": self.test}

    @property
    def duplicates(self) -> int:
        """Rows of validation, confirm and test that repeat a row of train (or, in test, of validation): a warning."""
        return sum(self.repeated.values())


def split(train: Table, validation: Split, test: Split, recognised: Recognised, *, seed: int = 42) -> Splits:
    """Make the splits of one run.

    Args:
        train: the rows of `data.train`.
        validation, test: a share of `train` between 0 and 1; a source of its own; or None for no such split.
        recognised: format and columns, which every source must have.
        seed: of the draw.

    Rows with the same content (classification: the same text, whatever its label) are kept together, so that
    no content of one table ends up on two sides. Shares are drawn label by label, and each label leaves texts to train.

    Raises:
        ConfigError: a share outside (0, 1), or shares that leave nothing to train on.
        DataError: too few rows to share, a source that does not fit, or a label that train does not have.
    """
    _check_shares(validation, test)
    total = len(train)
    rest = train
    parts: dict[str, Table] = {"validation": NO_ROWS, "test": NO_ROWS}
    for number, (name, asked) in enumerate((("test", test), ("validation", validation))):
        if isinstance(asked, str | tuple):
            parts[name] = load_table(asked, split=name)
            check(parts[name], recognised)
        elif asked is not None:
            parts[name], rest = _draw(rest, asked * total, recognised, f"{seed}/{number}", name)
    confirm = NO_ROWS
    if len(parts["validation"]) >= CONFIRM_FROM:
        half = len(parts["validation"]) / 2
        # Rows that are all alike, or each of a class of its own, cannot be shared out, and no one asked for that.
        with suppress(DataError):
            confirm, parts["validation"] = _draw(parts["validation"], half, recognised, f"{seed}/confirm", "confirm")
    splits = Splits(rest, parts["validation"], confirm, parts["test"])
    if recognised.task == "seq_cls":
        _check_labels(splits, recognised)
    return Splits(rest, parts["validation"], confirm, parts["test"], _repeats(splits, recognised))


def content_key(row: Mapping[str, Any], recognised: Recognised) -> str:
    """Equal for rows that say the same, but for case and white space. A label is no part of the content."""
    return "\0".join(_said(row.get(column)) for role, column in recognised.columns.items() if role != "label")


def _said(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    return " ".join(text.split()).casefold()


def _check_shares(validation: Split, test: Split) -> None:
    shares = {"validation": validation, "test": test}
    for name, share in shares.items():
        if isinstance(share, float | int) and not 0 < share < 1:
            raise ConfigError(
                f"`data.{name}` is {share} but a share must lie between 0 and 1",
                next=f"try 0.1, a file, or null for no {name} split",
            )
    total = sum(share for share in shares.values() if isinstance(share, float | int))
    if total >= 1:
        raise ConfigError(f"`data.validation` and `data.test` together take {total:g} of the rows", need="less than 1")


def _draw(table: Table, wanted: float, recognised: Recognised, seed: str, name: str) -> tuple[Table, Table]:
    """About `wanted` rows, and the others: whole groups of equal content, evenly over the labels."""
    strata = _groups_by_label(table, recognised)
    share = wanted / max(1, len(table))
    rng = random.Random(seed)
    drawn: list[list[int]] = []
    rows_seen = rows_drawn = groups_seen = 0
    for groups in strata:
        rng.shuffle(groups)
        # Running totals round, not each label: many small labels still add up to the share. Groups are held to the
        # share too, or a text that fills half the table would leave all the others to the draw.
        rows_seen += sum(len(group) for group in groups)
        groups_seen += len(groups)
        for group in groups[:-1]:
            if rows_drawn + len(group) <= round(share * rows_seen) and len(drawn) < round(share * groups_seen):
                drawn.append(group)
                rows_drawn += len(group)
    if not drawn:
        small = [group for groups in strata for group in groups[:-1]]
        if not small:
            raise DataError(
                f"{table.source} has too few different rows to take {name} rows from",
                got=f"{len(table)} rows, {sum(len(groups) for groups in strata)} different",
                need=f"at least 2 different rows{' of one label' if recognised.task == 'seq_cls' else ''}",
                next=f"add rows, or set `data.{name}` to a file or null",
            )
        drawn = [min(small, key=len)]
    inside = {index for group in drawn for index in group}
    return table.take(sorted(inside)), table.take(i for i in range(len(table)) if i not in inside)


def _groups_by_label(table: Table, recognised: Recognised) -> list[list[list[int]]]:
    """Row numbers: label by label, in groups of equal content. Without labels all groups are in one stratum."""
    groups: dict[str, list[int]] = {}
    for index, row in enumerate(table.rows):
        groups.setdefault(content_key(row, recognised), []).append(index)
    strata: dict[str, list[list[int]]] = {}
    for group in groups.values():
        label = recognised.label(table.rows[group[0]]) if recognised.task == "seq_cls" else None
        strata.setdefault(label or "", []).append(group)
    return [strata[label] for label in sorted(strata)]


def _check_labels(splits: Splits, recognised: Recognised) -> None:
    known = labels_of(splits.train, recognised)
    if len(known) < 2:
        raise DataError(
            f"{splits.train.source} has {'only one label' if known else 'no labels'}",
            got=f"`{listed(known)}` in all {len(splits.train)} rows"
            if known
            else "rows whose label is empty, null or not a number",
            need="at least 2 labels to tell apart",
            next="check `data.label_column`",
        )
    classes = set(known)
    for name, table in splits.tables.items():
        for index, row in enumerate(table.rows):
            label = recognised.label(row)
            if label is not None and label not in classes:
                raise DataError(
                    f"the label `{label}` stands in {name} but never in train",
                    where=table.origin(index),
                    need=f"one of the labels of train: {shown(known)}",
                    next=_advice(label, name),
                )


def _advice(label: str, split: str) -> str:
    if label == "-1":
        return f"-1 marks the rows of a hidden test set, which nobody can score: set `data.{split}` to a share or null"
    return "add rows with this label to train, or remove this row"


def labels_of(table: Table, recognised: Recognised) -> tuple[str, ...]:
    """The classes of a table; rows that have none are passed over."""
    return sort_labels({label for row in table.rows if (label := recognised.label(row)) is not None})


def _repeats(splits: Splits, recognised: Recognised) -> dict[str, int]:
    """How many rows of each held-out split say what an earlier split says."""

    def keys(*tables: Table) -> Sequence[str]:
        return [content_key(row, recognised) for table in tables for row in table.rows]

    trained = set(keys(splits.train))
    searched = trained | set(keys(splits.validation, splits.confirm))
    held_out = {"validation": (splits.validation, trained), "confirm": (splits.confirm, trained), "test": (splits.test, searched)}
    return {name: n for name, (table, earlier) in held_out.items() if (n := sum(key in earlier for key in keys(table)))}
