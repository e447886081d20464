"""Which rows belong together, so that a split must not part them; and which held-out
rows are related to trained ones.

Rows belong together that say the same, that are asked the same (the same prompt with another answer, a
conversation and its longer version), that have one value in a column which names something larger than a
row (`conversation_id`), or that are nearly the same text. A relation that would put too much into one
group is not followed, only told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loraloom.config.asked import Auto
from loraloom.data.group_columns import group_columns, numbered
from loraloom.data.near import Labels, components, near_labels
from loraloom.data.overlap import Kind, Overlap
from loraloom.data.recognise import Recognised
from loraloom.data.said import Turns, asked_keys, key_of, turns
from loraloom.data.table import Table, listed

LARGEST_CERTAIN, LARGEST_NEAR = 1 / 2, 1 / 3
"""Share of the rows that one group may hold, by how sure it is that its rows belong together."""

TOLD_SHARE = 0.01
"""Share of the rows: fewer that are grouped without being asked for are not worth a line."""


@dataclass(frozen=True)
class Relation:
    """One way in which rows can belong together. `labels` [rows]: of each row the first
    that it is related to."""

    kind: Kind
    words: str
    """What related rows do: "share a prompt"."""
    labels: Labels
    largest: float
    """Share of the rows that may come together by it."""
    whole: bool = False
    """Whether its own groups are followed however large they are."""


@dataclass(frozen=True)
class Groups:
    """Numbers [rows]: rows of one number stay together. `notes` say what was grouped
    and what could not be."""

    numbers: Labels
    notes: tuple[str, ...] = ()


def relations(
    table: Table, recognised: Recognised, column: str | Auto | None
) -> tuple[list[Relation], list[str]]:
    """Every relation between the rows of `table`, the closest first, and notes on how they were found.

    Args:
        column: as `data.group_column`: a column's name, "auto" for those that are known, or None: only
            rows that say the same are related.

    Raises:
        DataError: there is no such column.
    """
    said = [turns(row, recognised) for row in table.rows]
    content = numbered([key_of(each) for each in said])
    found = [Relation("content", "say the same", content, LARGEST_CERTAIN, whole=True)]
    if column is None:
        return found, []
    named, notes = group_columns(table, column)
    whole = column != "auto"
    found += [
        Relation("column", f"share a `{name}`", labels, LARGEST_CERTAIN, whole)
        for name, labels in named.items()
    ]
    asked = _asked_labels(said)
    found.append(Relation("asked", "share a prompt", asked, LARGEST_CERTAIN))
    near, compared = _near_labels(said, content)
    found.append(Relation("near", "are nearly the same", near, LARGEST_NEAR))
    if compared is not None:
        notes.append(
            f"near-duplicates were looked for among {compared:,} of {len(table):,} rows: all would take"
            " too long"
        )
    return found, notes


def groups_of(found: Sequence[Relation], count: int, *, named: bool) -> Groups:
    """Which rows a draw keeps together.

    Args:
        count: how many rows are drawn from; they are the first of the table, and the
            only ones that notes count.
        named: the group column was named by the user: then it alone decides, beside
            rows that say the same.
    """
    content, *others = found
    numbers = np.arange(len(content.labels))
    told = list[str]()
    left_apart = list[str]()
    columns = [relation for relation in others if relation.kind == "column"]
    # Columns come first: rows as short as "thanks" may say the same in all conversations, and would
    # chain these into one group. Then the column is followed, and what still repeats is taken out after
    # the draw.
    for relation in (
        *columns,
        content,
        *(relation for relation in others if relation not in columns and not named),
    ):
        now, apart = _widened(numbers, relation)
        larger = int(_larger(numbers, now)[:count].sum())
        if relation is not content and (larger >= TOLD_SHARE * count or (larger and named)):
            told.append(f"{larger:,} {relation.words}")
        if apart and relation is not content:
            left_apart.append(
                f"{apart:,} of {len(numbers):,} rows {relation.words} in groups too large for one side:"
                " these are drawn one by one; `data.group_column` names what to keep together"
            )
        numbers = now
    notes: list[str] = []
    if told:
        number = len(np.unique(numbers[:count]))
        notes.append(
            f"{count:,} rows are {number:,} groups ({listed(told)}): each group stays on one side of the"
            " splits"
        )
    return Groups(numbers, (*notes, *left_apart))


def overlaps(found: Sequence[Relation], sides: Mapping[str, Sequence[int]]) -> tuple[Overlap, ...]:
    """Held-out rows that are related to a row of an earlier split, each counted once,
    by its closest relation.

    Args:
        sides: split -> its rows, as numbers in the table that `found` is of.
    """
    result: list[Overlap] = []
    searched = [*sides["train"], *sides["validation"], *sides["confirm"]]
    for split, earlier in (
        ("validation", sides["train"]),
        ("confirm", sides["train"]),
        ("test", searched),
    ):
        left = np.asarray(sides[split], dtype=np.int64)
        of = len(left)
        for relation in found:
            related = np.isin(
                relation.labels[left], relation.labels[np.asarray(earlier, dtype=np.int64)]
            )
            if count := int(related.sum()):
                result.append(Overlap(split, relation.kind, relation.words, count, of))
            left = left[~related]
    return tuple(result)


@dataclass(frozen=True)
class Repeats:
    """Rows of one split that an earlier row of it makes superfluous.

    Attributes:
        same: they say what an earlier row says.
        near: beside these, they are nearly the same text; None where that was not looked for.
    """

    same: int
    near: int | None


def repeats_within(found: Sequence[Relation], rows: Sequence[int]) -> Repeats:
    """What repeats among some rows, given as numbers in the table that `found` is of."""
    chosen = np.asarray(rows, dtype=np.int64)
    said = len(np.unique(found[0].labels[chosen]))
    near = [relation.labels[chosen] for relation in found if relation.kind == "near"]
    alike = said - len(np.unique(near[0])) if near else None
    return Repeats(len(chosen) - said, alike)


def joined_labels(*labels: Labels) -> Labels:
    """Rows that any of `labels` holds together, directly or over others."""
    pairs = (
        (row, int(first)) for each in labels for row, first in enumerate(each.tolist()) if row != first
    )
    return components(len(labels[0]), pairs)


def _widened(numbers: Labels, relation: Relation) -> tuple[Labels, int]:
    """`numbers` joined by one more relation but where too much would come together; and
    how many rows that leaves apart."""
    joined = joined_labels(numbers, relation.labels)
    sizes = np.bincount(joined, minlength=len(joined))
    # A group that either side has by itself is no chain: it stays, however large.
    allowed = max(
        relation.largest * len(joined),
        _largest(numbers),
        _largest(relation.labels) if relation.whole else 0,
    )
    too_large = sizes > allowed
    apart = too_large[joined]
    if not apart.any():
        return joined, 0
    return joined_labels(numbers, np.where(apart, np.arange(len(joined)), relation.labels)), int(
        apart.sum()
    )


def _larger(before: Labels, after: Labels) -> NDArray[np.bool_]:
    """Whether a row's group has become larger, [rows]."""
    old, new = np.bincount(before, minlength=len(before)), np.bincount(after, minlength=len(after))
    return new[after] > old[before]


def _largest(labels: Labels) -> int:
    return int(np.bincount(labels).max(initial=0))


def _asked_labels(said: Sequence[Turns]) -> Labels:
    """A row belongs to every row that is asked, anywhere, what this one answers last."""
    keys = [asked_keys(each) for each in said]
    last: dict[str, int] = {}
    for row, each in enumerate(keys):
        if each:
            last.setdefault(each[-1], row)
    pairs = ((row, last[key]) for row, each in enumerate(keys) for key in each if key in last)
    return components(len(said), pairs)


def _near_labels(said: Sequence[Turns], content: Labels) -> tuple[Labels, int | None]:
    """Near-duplicates among rows that differ; and how many of these were compared, None
    where all were."""
    different = np.flatnonzero(content == np.arange(len(content)))
    texts = [
        " ".join(text for speaker, text in said[int(row)] if speaker in _COMPARED) for row in different
    ]
    labels, compared = near_labels(texts)
    near = np.arange(len(content))
    near[different] = different[labels]
    return near[content], None if compared == len(texts) else compared


_COMPARED = ("", "user", "assistant", "tool")
