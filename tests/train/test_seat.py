"""What a candidate does at which of its steps."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from loraloom.train.seat import evaluation_steps


@given(planned=st.integers(1, 300), evaluations=st.integers(1, 40))
def test_scoring_is_even_and_ends_at_the_end(planned: int, evaluations: int) -> None:
    steps = sorted(evaluation_steps(planned, evaluations))
    assert steps[-1] == planned and steps[0] >= 1 and len(steps) == min(planned, evaluations)
    gaps = [b - a for a, b in zip([0, *steps], steps, strict=False)]
    assert max(gaps) - min(gaps) <= 1 or planned < 2 * evaluations
