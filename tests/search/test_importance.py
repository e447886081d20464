"""Importance finds the setting that a planted cost hangs on, and says so when it cannot know."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from loraloom.search.importance import FEWEST, importance


def planted(count: int, seed: int) -> list[tuple[dict[str, Any], float]]:
    """Candidates whose cost hangs on the rate, with a little noise, and on nothing else."""
    draw = random.Random(seed)
    candidates: list[tuple[dict[str, Any], float]] = []
    for _ in range(count):
        settings = {
            "rate": 10 ** draw.uniform(-4.5, -2),
            "r": draw.choice([4, 8, 16, 32]),
            "targets": draw.choice(["all", "few"]),
        }
        candidates.append((settings, (math.log10(settings["rate"]) + 3.2) ** 2 + draw.gauss(0, 0.05)))
    return candidates


@pytest.mark.parametrize(("count", "share"), [(FEWEST, 0.8), (32, 0.9)])
def test_what_matters_comes_first(count: int, share: float) -> None:
    found = [importance(planted(count, seed)) for seed in range(30)]
    assert sum(next(iter(one.shares), "") == "rate" for one in found) >= share * len(found)
    assert all(sum(one.shares.values()) == pytest.approx(1) for one in found)


def test_diverged_and_repeated_candidates_do_no_harm() -> None:
    candidates = planted(20, 0)
    candidates += [
        (candidates[0][0], candidates[0][1] + 0.1),
        ({**candidates[1][0], "rate": 0.5}, math.inf),
    ]
    candidates += [({**candidates[2][0], "targets": ["q_proj", "v_proj"]}, 0.2)]
    assert next(iter(importance(candidates).shares)) == "rate"


@pytest.mark.parametrize(
    ("candidates", "note"),
    [
        ([], "no setting was varied"),
        ([({"r": 8}, 1.0)] * 20, "no setting was varied"),
        ([({"r": r}, 1.0 * r) for r in range(5)], "5 different settings are too few"),
    ],
)
def test_too_little_to_tell_is_said(candidates: list[tuple[dict[str, Any], float]], note: str) -> None:
    found = importance(candidates)
    assert not found.shares
    assert note in found.note
