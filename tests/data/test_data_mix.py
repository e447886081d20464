"""Shares of several sources, and the rows that each step takes of them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from loraloom.config.asked import DataConfig, SourceConfig
from loraloom.data.batches import CHUNK_BATCHES
from loraloom.data.mix import MixedOrder, parts_of, with_replay


def amounts(data: DataConfig, **rows: int) -> dict[str, float]:
    return {part.name: part.amount for part in parts_of(data, rows)}


def mix(*sources: SourceConfig, **asked: object) -> DataConfig:
    return DataConfig(train=sources, **asked)  # pyright: ignore[reportArgumentType]


A, B = SourceConfig("a.jsonl"), SourceConfig("b.jsonl")


def test_shares_follow_what_was_asked() -> None:
    rows = {"a": 900, "b": 100}
    assert amounts(mix(A, B, mix="proportional"), **rows) == pytest.approx({"a": 900, "b": 100})
    assert amounts(mix(A, B, mix="equal"), **rows) == pytest.approx({"a": 500, "b": 500})
    # sqrt(900) : sqrt(100) is 3 : 1
    tempered = amounts(mix(A, B, mix={"temperature": 2.0}), **rows)
    assert tempered == pytest.approx({"a": 750, "b": 250})
    assert amounts(mix(A, B, mix={"temperature": 1.0}), **rows) == pytest.approx({"a": 900, "b": 100})
    weighted = mix(SourceConfig("a.jsonl", weight=4), B)
    assert amounts(weighted, **rows) == pytest.approx({"a": 800, "b": 200})


def test_a_source_with_epochs_gives_so_many_passes_and_the_others_share_theirs() -> None:
    data = mix(SourceConfig("a.jsonl", weight=2), SourceConfig("b.jsonl", epochs=0.5, name="chat"))
    parts = {part.name: part for part in parts_of(data, {"a": 300, "chat": 100})}
    assert parts["a"].amount == 300
    assert parts["chat"].amount == 50
    assert parts["chat"].passes == 0.5


def test_replay_is_a_share_of_every_batch_and_takes_nothing_from_the_task() -> None:
    parts = with_replay(parts_of(mix(A, B, mix="proportional"), {"a": 60, "b": 20}), 500, 0.2)
    assert parts[-1].amount == pytest.approx(20)
    assert sum(part.amount for part in parts[:-1]) == 80
    assert with_replay(parts[:-1], 500, 0.0) == parts[:-1]


def order(seed: int = 0, batch: int = 8, shares: tuple[float, ...] = (70, 25, 5)) -> MixedOrder:
    rng = np.random.default_rng(0)
    lengths = rng.integers(4, 60, 120)
    members = [np.arange(0, 70), np.arange(70, 110), np.arange(110, 120)]
    return MixedOrder(lengths, list(zip(members, shares, strict=True)), batch, seed)


def test_every_batch_is_full_and_within_two_rows_of_its_shares() -> None:
    one = order()
    counts = one.counts(400)
    assert (counts.sum(1) == 8).all()
    so_far = counts.cumsum(0)
    wanted = np.arange(1, 401)[:, None] * 8 * one.shares
    assert np.abs(so_far - wanted).max() < 2
    for step in range(60):
        source = np.digitize(one.rows_of_step(step), [70, 110])
        assert np.bincount(source, minlength=3).tolist() == counts[step].tolist()


def test_each_source_is_walked_in_epochs_of_its_own() -> None:
    one = order()
    seen = Counter[int]()
    steps = 0
    while steps < 200:
        seen.update(one.rows_of_step(steps).tolist())
        steps += 1
    taken = one.counts(200).sum(0)
    for rows, total in zip(one.rows, taken, strict=True):
        times = [seen[row] for row in rows.tolist()]
        assert sum(times) == total
        # A walk that is still open has given some rows, and a chunk takes its rows in another order.
        assert max(times) - min(times) <= 1


def test_rows_of_a_step_depend_on_the_seed_and_the_step_alone() -> None:
    forth, back = order(), order()
    steps = range(3 * CHUNK_BATCHES)
    there = [forth.rows_of_step(step).tolist() for step in steps]
    again = [back.rows_of_step(step).tolist() for step in reversed(steps)][::-1]
    assert there == again
    assert there != [order(seed=1).rows_of_step(step).tolist() for step in steps]


def test_rows_of_a_batch_are_near_in_length() -> None:
    one = order(shares=(50, 50, 20))
    spread = [np.ptp(one.lengths[one.rows_of_step(step)]) for step in range(CHUNK_BATCHES)]
    rng = np.random.default_rng(1)
    by_chance = [np.ptp(one.lengths[rng.integers(0, 120, 8)]) for _ in range(CHUNK_BATCHES)]
    assert np.mean(spread) < 0.5 * np.mean(by_chance)
    for step in range(5):
        lengths = one.lengths[one.rows_of_step(step)]
        assert (np.diff(lengths) >= 0).all()


def test_an_epoch_is_all_rows_that_it_takes() -> None:
    assert order(batch=8, shares=(70, 25, 5)).steps_per_epoch == 13
    assert order(batch=8, shares=(70, 20, 6)).steps_per_epoch == 12
