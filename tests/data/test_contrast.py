"""What is said of how the test's rows differ from those of validation."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from loraloom.data.contrast import contrast, more_related
from loraloom.data.overlap import Overlap
from loraloom.data.rows import Encoded, Row
from loraloom.records import Task


def rows(count: int, length: int = 8, token: int = 1, label: Sequence[int] = (0, 1)) -> tuple[Row, ...]:
    """Rows of tokens from 10 of which `token` is the first."""
    rng = random.Random(count + length)
    return tuple(
        Row(
            np.array([token + rng.randrange(10) for _ in range(length)], dtype=np.int32),
            np.array([label[number % len(label)]], dtype=np.int32),
            number,
        )
        for number in range(count)
    )


def encoded(
    test: tuple[Row, ...],
    *,
    task: Task = "seq_cls",
    given: frozenset[str] = frozenset(),
    overlaps: tuple[Overlap, ...] = (),
) -> Encoded:
    return Encoded(
        rows(200),
        rows(60),
        (),
        test,
        task,
        "text_label",
        ("good", "bad"),
        given=given,
        overlaps=overlaps,
    )


def test_rows_of_one_kind_differ_in_nothing() -> None:
    assert contrast(encoded(rows(90))) == ()
    assert not more_related(encoded(rows(90)))


def test_sources_are_told_apart() -> None:
    assert contrast(encoded(rows(90), given=frozenset({"test"}))) == (
        "the test has a source of its own, validation is drawn from the training rows",
    )
    assert contrast(encoded(rows(90), given=frozenset({"test", "validation"}))) == (
        "validation and test have sources of their own",
    )


def test_validation_that_resembles_training_is_told() -> None:
    overlaps = (
        Overlap("validation", "asked", "share a prompt", 24, 60),
        Overlap("test", "near", "are nearly the same", 1, 90),
    )
    data = encoded(rows(90), overlaps=overlaps)
    assert contrast(data) == (
        "24 of 60 validation rows repeat or resemble training rows, 1 of 90 test rows do",
    )
    assert more_related(data)
    assert not more_related(
        encoded(rows(90), overlaps=(Overlap("test", "asked", "share a prompt", 45, 90),))
    )


def test_tokens_lengths_labels_and_groups_are_told() -> None:
    (told,) = contrast(encoded(rows(90, token=6)))
    assert "of the test's tokens occur in no training row, 0% of validation's" in told
    assert contrast(encoded(rows(90, length=16))) == (
        "rows have 16 tokens in the test, 8 in validation (medians)",
    )
    skewed = contrast(encoded(rows(90, label=(0, 0, 0, 0, 1))))
    assert skewed in (
        ("`good` is the label of 80% of the test's rows, of 50% of validation's",),
        ("`bad` is the label of 20% of the test's rows, of 50% of validation's",),
    )
    one_text = tuple(Row(row.input_ids, row.labels, row.cluster // 30) for row in rows(90))
    assert contrast(encoded(one_text)) == ("the test's 90 rows are of 3 groups only",)
