"""Who shares a pass, and what a fault looks like from outside."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from loraloom.lora.device_faults import is_out_of_memory
from loraloom.train.faults import GROWTH, first_bad, first_grown, largest_outputs
from loraloom.train.passes import PADDING_LIMIT, group_passes, next_passes
from loraloom.train.seat import evaluation_steps


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


@given(planned=st.integers(1, 300), evaluations=st.integers(1, 40))
def test_scoring_is_even_and_ends_at_the_end(planned: int, evaluations: int) -> None:
    steps = sorted(evaluation_steps(planned, evaluations))
    assert steps[-1] == planned and steps[0] >= 1 and len(steps) == min(planned, evaluations)
    gaps = [b - a for a, b in zip([0, *steps], steps, strict=False)]
    assert max(gaps) - min(gaps) <= 1 or planned < 2 * evaluations


@pytest.mark.parametrize(
    ("fault", "is_memory"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 80 bytes"),
            True,
        ),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp] . DefaultCPUAllocator: not enough memory: you tried to"
                " allocate 1"
            ),
            True,
        ),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_a_lack_of_memory_is_told_from_other_faults(fault: BaseException, is_memory: bool) -> None:
    assert is_out_of_memory(fault) is is_memory


def test_the_first_layer_to_go_bad_is_named_in_the_order_of_running() -> None:
    first, second, third = nn.Identity(), nn.Linear(2, 2), nn.Identity()
    with torch.no_grad():
        second.weight.fill_(float("inf"))
    layers = {"third": third, "second": second, "first": first}
    outputs = largest_outputs(layers, lambda: third(second(first(torch.ones(1, 2)))))
    assert list(outputs) == ["first", "second", "third"] and outputs["first"] == 1.0
    assert first_bad(outputs) == "second" and first_bad({"first": 1.0}) is None
    assert first_bad({"a": 1.0, "b": math.nan}) == "b"
    assert not second._forward_hooks


def test_the_first_layer_to_run_away_is_named_against_the_base() -> None:
    base = {"a": 1.0, "b": 2.0, "c": 1.0}
    assert first_grown({"a": GROWTH, "b": 2 * GROWTH + 1, "c": 1e9}, base) == "b"
    assert first_grown({"a": 1.0, "unknown": 1e9}, base) is None
