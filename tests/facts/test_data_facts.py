"""What is measured of encoded rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloom.data.rows import Encoded, Row, SplitReport
from loraloom.facts.data import assumed_data, data_facts
from loraloom.records import Task


def row(length: int, label: int | None = None) -> Row:
    ids = np.arange(1, length + 1, dtype=np.int32)
    labels = (
        np.array([label], np.int32)
        if label is not None
        else np.where(ids > 2, ids, -100).astype(np.int32)
    )
    return Row(ids, labels)


def encoded(
    train: list[Row], validation: list[Row] | None = None, task: Task = "causal_lm", **more: object
) -> Encoded:
    return Encoded(tuple(train), tuple(validation or ()), (), (), task, "text_label", **more)  # type: ignore[arg-type]


def test_rows_tokens_and_supervised_tokens() -> None:
    facts = data_facts(encoded([row(4), row(10), row(6)], [row(30)]))
    assert (facts.rows, facts.tokens, facts.supervised_tokens) == (3, 20, 2 + 8 + 4)
    assert (facts.longest, facts.longest_anywhere, facts.validation_rows, facts.validation_tokens) == (
        10,
        30,
        1,
        30,
    )
    assert facts.mean_length == pytest.approx(20 / 3)
    assert facts.measured


def test_balance_of_labels_and_repeated_rows() -> None:
    rows = [row(4, 0), row(4, 0), row(5, 0), row(6, 2)]
    facts = data_facts(encoded(rows, task="seq_cls", label_names=("a", "b", "c")))
    assert facts.label_counts == (3, 0, 1)
    assert facts.majority_share == 0.75
    assert facts.supervised_tokens == 4
    assert facts.repeated_rows == 1


def test_a_translation_is_as_long_as_its_longer_side_and_counts_both() -> None:
    facts = data_facts(encoded([Row(np.ones(4, np.int32), np.ones(9, np.int32))], task="seq2seq_lm"))
    assert (facts.longest, facts.tokens, facts.supervised_tokens) == (9, 13, 9)


def test_what_truncation_took_and_what_leaked_is_passed_on() -> None:
    report = {"train": SplitReport(rows=1, tokens=8, supervised=6, cut=1, supervised_lost=2)}
    facts = data_facts(encoded([row(8)], report=report, repeated={"test": 3}))
    assert (facts.supervised_lost, facts.leaked_rows) == (0.25, 3)


@given(st.lists(st.integers(1, 300), min_size=1, max_size=60))
def test_percentiles_bound_the_shares_they_name(lengths: list[int]) -> None:
    facts = data_facts(encoded([row(length) for length in lengths]))
    for share, tokens in facts.percentiles.items():
        assert sum(length <= tokens for length in lengths) >= share / 100 * len(lengths) - 1e-9
        assert tokens <= facts.longest
    for length in (1, 50, facts.longest):
        assert facts.share_above(length) >= sum(other > length for other in lengths) / len(
            lengths
        ) - 0.01 or length < min(lengths)
    assert facts.share_above(facts.longest) == 0


def test_nothing_to_train_on_is_described_without_a_crash() -> None:
    facts = data_facts(encoded([]))
    assert (facts.rows, facts.longest, facts.mean_length, facts.majority_share) == (0, 0, 0.0, 0.0)


@pytest.mark.parametrize("task", ["causal_lm", "seq_cls", "seq2seq_lm"])
def test_an_assumption_is_marked_as_one(task: Task) -> None:
    facts = assumed_data(task)
    assert not facts.measured and facts.task == task and facts.rows > 0
