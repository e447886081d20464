"""The front holds exactly the points that no other dominates."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from loraloom.search.front import pareto_front

POINTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12)


@given(POINTS)
def test_the_front_is_what_nothing_beats_at_both(pairs: list[tuple[int, int]]) -> None:
    points = {str(i): (float(price), float(cost)) for i, (price, cost) in enumerate(pairs)}

    def beaten(one: tuple[float, float]) -> bool:
        return any(
            other[0] <= one[0] and other[1] <= one[1] and other != one for other in points.values()
        )

    front = pareto_front(points)
    assert set(front) == {name for name, point in points.items() if not beaten(point)}
    assert [points[name] for name in front] == sorted(points[name] for name in front)


def test_what_was_not_measured_is_left_out() -> None:
    assert pareto_front({"a": (math.nan, 0.0), "b": (1.0, math.inf), "c": (5.0, 5.0)}) == ["c"]
