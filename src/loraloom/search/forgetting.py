"""Among settings that cannot be told from the best, the one that forgets least (the rule of one standard
error; Breiman et al., Classification and Regression Trees, 1984, section 3.4.3)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from loraloom.records import Score
from loraloom.search.compare import seeds_difference


def forgets_least(
    finals: Mapping[str, Sequence[Score]], best: str, forgotten: Mapping[str, float]
) -> str:
    """The setting to keep: of those whose cost is at most one standard error above that of `best`,
    paired row by row and seed by seed, the one with the lowest loss on what is not to be forgotten.

    Args:
        finals: scores of each setting on the task, the same seeds and rows for all.
        forgotten: mean loss of each on rows that it should go on being able to do; one that has none is
            not kept for it.
    """
    near = [best]
    for name, scores in finals.items():
        difference = seeds_difference(scores, finals[best])
        if name != best and math.isfinite(difference.se) and difference.mean <= difference.se:
            near.append(name)
    return min(near, key=lambda name: (forgotten.get(name, math.inf), name != best))


def by_forgetting(costs: Mapping[str, float], error: float, forgotten: Mapping[str, float]) -> list[str]:
    """Settings in the order in which they deserve a closer look: the best, then those within its
    standard error from the one that forgets least on, then the others by their cost.

    Args:
        costs: of each setting on the task.
        error: standard error of the best one's cost.
    """
    order = sorted(costs, key=lambda name: costs[name])
    limit = costs[order[0]] + error
    near = [name for name in order[1:] if costs[name] <= limit]
    near.sort(key=lambda name: forgotten.get(name, math.inf))
    return [order[0], *near, *(name for name in order[1:] if name not in near)]
