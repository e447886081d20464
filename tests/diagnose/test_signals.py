"""A trace stays small and true to what went into it, and signals go through JSON unchanged."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sick import healthy

from loraloom.diagnose.signals import BUCKETS, Signals, Trace

NUMBERS = st.floats(-100, 100)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(NUMBERS, st.booleans()), min_size=1, max_size=3 * BUCKETS))
def test_a_trace_keeps_the_means_of_all_steps(steps: list[tuple[float, bool]]) -> None:
    trace = Trace()
    for number, (loss, clipped) in enumerate(steps, 1):
        trace.add(number, loss, abs(loss), clipped, 1e-3)
    assert len(trace.steps) <= BUCKETS and trace.steps[-1] == len(steps)
    sizes = [trace.width] * (len(trace.steps) - 1) + [trace.filled]
    assert sum(sizes) == len(steps)
    mean = sum(size * loss for size, loss in zip(sizes, trace.losses, strict=True)) / len(steps)
    assert mean == pytest.approx(sum(loss for loss, _ in steps) / len(steps), abs=1e-9)
    share = sum(size * value for size, value in zip(sizes, trace.clipped, strict=True)) / len(steps)
    assert share == pytest.approx(sum(clipped for _, clipped in steps) / len(steps))
    assert trace.areas[-1] == pytest.approx(1e-3 * len(steps))


def test_a_short_run_is_kept_step_by_step() -> None:
    trace = Trace()
    for step in range(1, BUCKETS + 1):
        trace.add(step, float(step), 1.0, False, 0.1)
    assert trace.losses == [float(step) for step in range(1, BUCKETS + 1)]
    trace.add(BUCKETS + 1, 7.0, 1.0, False, 0.1)
    assert (trace.width, trace.losses[0], trace.losses[-1], trace.filled) == (2, 1.5, 7.0, 1)


def test_signals_go_through_json() -> None:
    signals = healthy().signals
    signals.seen_exit, signals.retain_change = ("diverged", "why"), (0.1, 0.02)
    assert Signals.from_plain(json.loads(json.dumps(signals.to_plain()))) == signals
    assert Signals.from_plain(json.loads(json.dumps(Signals().to_plain()))) == Signals()
