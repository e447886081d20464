"""The order of rows as a pure function of the step, and the tensors made of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloom.data.batches import CHUNK_BATCHES, Order, collate, micro_batches
from loraloom.data.rows import Row


@given(
    rows=st.integers(1, 300),
    batch=st.integers(1, 17),
    seed=st.integers(0, 2**31),
    epoch=st.integers(0, 3),
    micro=st.integers(1, 9),
)
def test_every_row_comes_once_an_epoch_whatever_the_micro_batch(
    rows: int, batch: int, seed: int, epoch: int, micro: int
) -> None:
    order = Order(np.arange(rows) % 7 + 1, batch, seed)
    first = epoch * order.steps_per_epoch
    steps = [order.rows_of_step(first + i) for i in range(order.steps_per_epoch)]
    assert sorted(np.concatenate(steps).tolist()) == list(range(rows))
    assert sorted(len(step) for step in steps)[1:] == [batch] * (len(steps) - 1)
    for step in steps:
        pieces = micro_batches(step, micro)
        np.testing.assert_array_equal(np.concatenate(pieces), step)
        assert all(len(piece) == micro for piece in pieces[:-1])
        assert len(pieces[-1]) <= micro


def test_steps_can_be_asked_in_any_order() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 101)
    forward, backward = Order(lengths, 8, seed=3), Order(lengths, 8, seed=3)
    count = 3 * forward.steps_per_epoch
    ahead = [forward.rows_of_step(step).tolist() for step in range(count)]
    assert ahead == [backward.rows_of_step(step).tolist() for step in reversed(range(count))][::-1]


def test_each_epoch_and_each_seed_has_its_own_order() -> None:
    lengths = np.ones(64)
    order, other = Order(lengths, 8, seed=0), Order(lengths, 8, seed=1)
    epochs = [[order.rows_of_step(e * 8 + i).tolist() for i in range(8)] for e in range(2)]
    assert epochs[0] != epochs[1]
    assert epochs[0] != [other.rows_of_step(i).tolist() for i in range(8)]


def test_a_batch_holds_rows_of_like_length_in_shuffled_order() -> None:
    lengths = np.random.default_rng(0).integers(10, 1000, CHUNK_BATCHES * 8 * 2)
    order = Order(lengths, 8, seed=0)
    batches = [lengths[order.rows_of_step(step)] for step in range(order.steps_per_epoch)]
    padded = sum(len(batch) * batch.max() for batch in batches)
    assert padded < 1.05 * lengths.sum()
    longest = [int(batch.max()) for batch in batches]
    assert longest != sorted(longest)
    assert abs(np.corrcoef(np.arange(len(longest)), longest)[0, 1]) < 0.3


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="no rows to order"):
        Order([], 4, seed=0)
    with pytest.raises(ValueError, match="`effective_batch` is 0"):
        Order([1, 2], 0, seed=0)
    with pytest.raises(ValueError, match="`micro` is 0"):
        micro_batches(np.arange(3), 0)


def row(ids: list[int], labels: list[int]) -> Row:
    return Row(np.array(ids, dtype=np.int32), np.array(labels, dtype=np.int32))


def test_causal_rows_are_padded_on_the_right() -> None:
    torch = pytest.importorskip("torch")
    batch = collate([row([5, 6, 7], [-100, 6, 7]), row([8, 9], [-100, 9])], pad_id=3, task="causal_lm")
    assert batch.input_ids.tolist() == [[5, 6, 7], [8, 9, 3]]
    assert batch.attention_mask.tolist() == [[True, True, True], [True, True, False]]
    assert batch.labels.tolist() == [[-100, 6, 7], [-100, 9, -100]]
    assert (batch.input_ids.dtype, batch.attention_mask.dtype, batch.labels.dtype) == (
        torch.int64,
        torch.bool,
        torch.int64,
    )


def test_classes_stay_one_a_row_and_targets_are_padded() -> None:
    classes = collate([row([5, 6], [1]), row([8], [0])], pad_id=0, task="seq_cls")
    assert classes.labels.tolist() == [1, 0]
    targets = collate([row([5, 6], [1, 2, 3]), row([8], [4])], pad_id=0, task="seq2seq_lm")
    assert targets.input_ids.tolist() == [[5, 6], [8, 0]]
    assert targets.labels.tolist() == [[1, 2, 3], [4, -100, -100]]
