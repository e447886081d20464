"""Schedules as pure functions, against transformers' own."""

from __future__ import annotations

import pytest
import torch
import transformers as tf
from hypothesis import given
from hypothesis import strategies as st

from loraloom.train.schedule import SHAPES, lr_at, warmup_steps


@given(
    total=st.integers(1, 60),
    ratio=st.floats(0, 0.9),
    shape=st.sampled_from(["linear", "cosine", "constant"]),
)
def test_rates_are_those_of_transformers(total: int, ratio: float, shape: str) -> None:
    warmup = warmup_steps(total, ratio)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    name = "constant_with_warmup" if shape == "constant" else shape
    theirs = tf.get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=total)
    for step in range(total):
        assert lr_at(step, total, 0.3, shape, warmup) == pytest.approx(
            theirs.get_last_lr()[0], abs=1e-12
        )
        optimizer.step()
        theirs.step()


@given(shape=st.sampled_from(sorted(SHAPES)), x=st.floats(0, 1), y=st.floats(0, 1))
def test_every_shape_starts_at_the_peak_and_never_rises(shape: str, x: float, y: float) -> None:
    assert SHAPES[shape](0) == pytest.approx(1.0)
    low, high = sorted((x, y))
    assert 1 + 1e-12 >= SHAPES[shape](low) >= SHAPES[shape](high) >= -1e-12
    if shape != "constant":
        assert SHAPES[shape](1) == pytest.approx(0.0, abs=1e-12)


def test_warmup_never_takes_the_whole_run() -> None:
    assert [warmup_steps(total, 0.5) for total in (1, 2, 3, 10)] == [0, 1, 2, 5]
    assert warmup_steps(4, 1.0) == 3 and warmup_steps(100, 0.0) == 0
