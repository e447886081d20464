"""Whose rows go through the model together."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from loraloom.data.batches import PADDING_LIMIT, group_passes, next_passes


@given(
    sizes=st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=5), min_size=1, max_size=8),
    budget=st.integers(1, 400),
)
def test_everybody_is_in_one_pass_and_none_wastes_much(sizes: list[list[int]], budget: int) -> None:
    lengths = [size for rows in sizes for size in rows]
    numbers = iter(range(len(lengths)))
    micro = {f"t{k}": np.array([next(numbers) for _ in rows]) for k, rows in enumerate(sizes)}
    groups = group_passes(micro, lengths, budget)
    assert sorted(trial for group in groups for trial in group) == sorted(micro)
    for group in groups:
        longest = {trial: max(lengths[i] for i in micro[trial]) for trial in group}
        padded = max(longest.values()) * sum(len(micro[trial]) for trial in group)
        if len(group) > 1:
            assert padded <= budget
            assert padded <= PADDING_LIMIT * sum(longest[trial] * len(micro[trial]) for trial in group)


@given(
    sizes=st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=5), min_size=1, max_size=12),
    budget=st.integers(1, 800),
    workers=st.integers(1, 4),
)
def test_passes_at_once_share_the_budget(sizes: list[list[int]], budget: int, workers: int) -> None:
    lengths = [size for rows in sizes for size in rows]
    numbers = iter(range(len(lengths)))
    waiting = {f"t{k}": np.array([next(numbers) for _ in rows]) for k, rows in enumerate(sizes)}
    count = len(waiting)
    while waiting:
        groups = next_passes(waiting, lengths, budget, workers)
        assert 1 <= len(groups) <= workers
        if count >= workers and len(waiting) == count:
            assert len(groups) == workers, "nobody waits while there is something to do"
        for group in groups:
            padded = max(lengths[i] for trial in group for i in waiting[trial]) * sum(
                len(waiting[trial]) for trial in group
            )
            assert len(group) == 1 or padded <= budget // workers
        for trial in [trial for group in groups for trial in group]:
            del waiting[trial]


def test_work_is_divided_evenly() -> None:
    """Eight like candidates are four and four, although five and three would fit as well."""
    waiting = {f"t{k}": np.array([k]) for k in range(8)}
    assert [len(group) for group in next_passes(waiting, [32] * 8, 10_000, 2)] == [4, 4]
    assert [len(group) for group in next_passes(waiting, [32] * 8, 10_000, 3)] == [3, 3, 2]
