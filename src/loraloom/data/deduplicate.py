"""Training rows that say what an earlier row says, left out where that is asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from loraloom.data.groups import Relation, relations
from loraloom.data.recognise import Recognised
from loraloom.data.table import Table, counted


def without_duplicates(table: Table, recognised: Recognised, how: bool | Literal["near"]) -> Table:
    """The first row of each that say the same, or nearly the same; with a note on the others.

    Two rows say the same whose every turn does, but for case and white space; of a classifier the text
    alone counts. Nearly the same is what splits go by (`data.near`).

    Args:
        how: True for rows that say the same, "near" for nearly the same too, False to keep all.
    """
    if not how or not len(table):
        return table
    found = {one.kind: one for one in relations(table, recognised, "auto" if how == "near" else None)[0]}
    same = _repeats(found["content"])
    near = _repeats(found["near"]) & ~same if how == "near" else np.zeros_like(same)
    told = _told(table, recognised, found["content"], same, near)
    kept = table.take(np.flatnonzero(~(same | near)).tolist())
    return replace(kept, notes=(*kept.notes, told))


def _repeats(relation: Relation) -> NDArray[np.bool_]:
    """Whether a row is related to an earlier one, [rows]."""
    return relation.labels != np.arange(len(relation.labels))


def _told(
    table: Table,
    recognised: Recognised,
    content: Relation,
    same: NDArray[np.bool_],
    near: NDArray[np.bool_],
) -> str:
    """How many rows go, and what goes with them."""
    left_out = int((same | near).sum())
    if not left_out:
        return "data.deduplicate: no row repeats an earlier one"
    parts = [f"{int(same.sum()):,} say what an earlier one says"]
    if near.any():
        parts.append(f"{int(near.sum()):,} nearly the same")
    if recognised.task == "seq_cls":
        labels = [recognised.label(row) for row in table.rows]
        firsts = content.labels.tolist()
        others = sum(labels[row] != labels[firsts[row]] for row in np.flatnonzero(same).tolist())
        if others:
            parts.append(f"{others:,} of them with another label, and the first one's is kept")
    rows = counted(left_out, "row")
    return f"data.deduplicate: {rows} of {len(table):,} left out ({'; '.join(parts)})"
