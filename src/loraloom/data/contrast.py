"""What differs between the rows of validation and those of the test: where they come
from, and what they look like."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from loraloom.data.rows import IGNORED, Encoded, Example, sides_of

RELATED = 0.1
"""Difference in the share of related rows that is worth telling."""
LONGER = 1.25
"""Factor between two median lengths that is worth telling."""
NEW_TOKENS = 0.02
"""Difference in the share of tokens that no training row has that is worth telling."""
FEW_GROUPS = 10
SIGMAS = 2.0


def contrast(data: Encoded) -> tuple[str, ...]:
    """How the test differs from validation, the most telling difference first; empty
    where the two are alike."""
    found = (
        _source(data),
        _related(data),
        _new_tokens(data),
        *_lengths(data),
        _label(data),
        _groups(data),
    )
    return tuple(told for told in found if told)


def related_share(data: Encoded, split: str) -> tuple[int, int]:
    """(related, all) rows of a split: related are those that repeat a training row,
    share its prompt, or nearly do.

    Rows are counted as they were read: a text may since have been cut into several.
    """
    found = [each for each in data.overlaps if each.split == split]
    read = found[0].of if found else len(data.splits[split])
    return min(read, data.repeated.get(split, 0) + sum(each.rows for each in found)), read


def more_related(data: Encoded) -> bool:
    """Whether validation is closer to the training rows than the test is."""
    (ours, of), (theirs, test_of) = related_share(data, "validation"), related_share(data, "test")
    return ours / of - theirs / test_of > RELATED


def _source(data: Encoded) -> str:
    if "test" not in data.given:
        return ""
    if "validation" in data.given:
        return "validation and test have sources of their own"
    return "the test has a source of its own, validation is drawn from the training rows"


def _related(data: Encoded) -> str:
    (ours, of), (theirs, test_of) = related_share(data, "validation"), related_share(data, "test")
    if abs(ours / of - theirs / test_of) <= RELATED:
        return ""
    return (
        f"{ours:,} of {of:,} validation rows repeat or resemble training rows, {theirs:,} of {test_of:,}"
        " test rows do"
    )


def _new_tokens(data: Encoded) -> str:
    known = np.unique(np.concatenate([row.input_ids for row in sides_of(data.train)]))
    ours, theirs = (_share_outside(rows, known) for rows in (data.validation, data.test))
    if abs(theirs - ours) <= NEW_TOKENS:
        return ""
    return f"{theirs:.0%} of the test's tokens occur in no training row, {ours:.0%} of validation's"


def _share_outside(rows: Sequence[Example], known: NDArray[np.int32]) -> float:
    return float(np.mean(~np.isin(np.concatenate([row.input_ids for row in sides_of(rows)]), known)))


def _lengths(data: Encoded) -> list[str]:
    """Of whole rows; and of what is learnt of them, where that is a part."""
    measures = {"rows": lambda row: len(row)} | (
        {} if data.task == "seq_cls" else {"answers": lambda row: row.supervised}
    )
    told: list[str] = []
    for name, measure in measures.items():
        ours, theirs = (
            float(np.median([measure(row) for row in rows])) for rows in (data.validation, data.test)
        )
        if max(ours, theirs) >= LONGER * max(1.0, min(ours, theirs)):
            told.append(
                f"{name} have {theirs:.0f} tokens in the test, {ours:.0f} in validation (medians)"
            )
    return told[:1] if data.format == "text" else told


def _label(data: Encoded) -> str:
    """The class whose share differs most, where that is more than chance."""
    if data.task != "seq_cls" or not data.label_names:
        return ""
    sides = [
        np.bincount(
            [int(row.labels[0]) for row in sides_of(rows) if row.labels[0] != IGNORED],
            minlength=len(data.label_names),
        )
        for rows in (data.validation, data.test)
    ]
    counts = np.stack(sides).astype(np.float64)
    rows = counts.sum(1, keepdims=True)
    shares, pooled = counts / rows, counts.sum(0) / rows.sum()
    errors = np.sqrt(pooled * (1 - pooled) * (1 / rows).sum())
    widest = int(np.argmax(np.abs(shares[1] - shares[0])))
    if abs(shares[1, widest] - shares[0, widest]) <= SIGMAS * errors[widest]:
        return ""
    name = data.label_names[widest]
    return (
        f"`{name}` is the label of {shares[1, widest]:.0%} of the test's rows, of"
        f" {shares[0, widest]:.0%} of validation's"
    )


def _groups(data: Encoded) -> str:
    groups = len(
        {row.cluster if row.cluster >= 0 else -1 - number for number, row in enumerate(data.test)}
    )
    few = groups < min(FEW_GROUPS, len(data.test))
    return f"the test's {len(data.test):,} rows are of {groups} groups only" if few else ""
