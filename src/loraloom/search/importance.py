"""Which settings mattered for the quality of the candidates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loraloom.search.ped_anova import divergence_of_choices, divergence_of_numbers, good_ones

FEWEST = 12
"""Different settings below which nothing is said. tests/search/test_importance.py plants one setting
among three that matters: from 12 candidates it comes first more than four times in five, from 8 two
times in three."""
GOOD = 4
"""At least this many candidates count as good ones; of many, the best tenth."""
LOG_SPREAD = 20
"""A positive setting whose largest value is this many times its smallest is spread over a log scale."""


@dataclass(frozen=True)
class Importance:
    """Share of each searched setting in what made candidates good, largest first, summing to 1; empty
    where `note` says why."""

    shares: Mapping[str, float] = field(default_factory=dict[str, float])
    note: str = ""


def importance(candidates: Sequence[tuple[Mapping[str, Any], float]]) -> Importance:
    """PED-ANOVA (Watanabe, Bansal and Hutter 2023, arXiv:2304.10255) over (settings,
    cost), a lower cost being better.

    It asks how differently each setting is spread among the good candidates and among all: ranks alone
    count, so that a pruned candidate may stand with its last cost and a diverged one with infinity.
    Settings that never vary are left out.
    """
    known = _distinct(candidates)
    keys = sorted(set[str].intersection(*(set(settings) for settings, _ in known))) if known else []
    keys = [key for key in keys if len({_hashable(settings[key]) for settings, _ in known}) > 1]
    if not keys:
        return Importance(note="no setting was varied")
    if len(known) < FEWEST:
        return Importance(
            note=f"{len(known)} different settings are too few to tell what mattered; it takes {FEWEST}"
        )
    shares = _ped_anova(known, keys)
    if not any(shares.values()):
        return Importance(
            note="no setting is spread differently among the good candidates than among all"
        )
    return Importance(dict(sorted(shares.items(), key=lambda item: (-item[1], item[0]))))


def _distinct(
    candidates: Sequence[tuple[Mapping[str, Any], float]],
) -> list[tuple[Mapping[str, Any], float]]:
    """One entry a setting, seeds of it averaged; costs that are not finite become the
    worst that was measured."""
    worst = max((cost for _, cost in candidates if math.isfinite(cost)), default=math.nan)
    seen: dict[Any, tuple[Mapping[str, Any], list[float]]] = {}
    for settings, cost in candidates:
        key = tuple(sorted((name, _hashable(value)) for name, value in settings.items()))
        seen.setdefault(key, (settings, []))[1].append(cost if math.isfinite(cost) else worst)
    found = [(settings, sum(costs) / len(costs)) for settings, costs in seen.values()]
    return [one for one in found if math.isfinite(one[1])]


def _ped_anova(
    known: Sequence[tuple[Mapping[str, Any], float]], keys: Sequence[str]
) -> dict[str, float]:
    good = good_ones([cost for _, cost in known], max(0.1, GOOD / len(known)))
    found = {key: _divergence([settings[key] for settings, _ in known], good) for key in keys}
    total = sum(found.values())
    return {key: value / total if total else 0.0 for key, value in found.items()}


def _divergence(values: Sequence[Any], good: NDArray[np.bool_]) -> float:
    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        choices = sorted({_hashable(value) for value in values}, key=str)
        return divergence_of_choices([choices.index(_hashable(value)) for value in values], good)
    low, high = float(min(values)), float(max(values))
    return divergence_of_numbers(values, good, log=low > 0 and high / low >= LOG_SPREAD)


def _hashable(value: Any) -> Any:
    return value if isinstance(value, (int, float, str, bool)) or value is None else str(value)
