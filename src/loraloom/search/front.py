"""Candidates that nothing beats at both ends: none is better and no dearer."""

from __future__ import annotations

import math
from collections.abc import Mapping


def pareto_front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Names of the points (price, cost) that no other point dominates, cheapest first.

    A point dominates another when it is no dearer and no worse, and less in one of the two: equal points
    stay together. Points that are not finite are left out.
    """
    finite = {
        name: point for name, point in points.items() if all(math.isfinite(value) for value in point)
    }
    front: list[str] = []
    best = last = (math.inf, math.inf)
    for name in sorted(finite, key=lambda name: (finite[name], name)):
        if finite[name][1] < best[1] or finite[name] == last:
            front.append(name)
            best = last = finite[name]
    return front
