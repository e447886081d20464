"""The benchmark of two skills: what a share of a gain is, and how weights are chosen."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scripts import load


@pytest.fixture(scope="module")
def scores() -> Any:
    return load("ship", "skill_scores")


def rows(module: Any, loss: float, spread: float = 0.1) -> Any:
    noise = np.random.default_rng(0).normal(0, spread, 200)
    return {"one": module.RowScores(loss + noise, np.ones(200, bool))}


def test_the_share_of_a_gain_that_is_kept(scores: Any) -> None:
    base, own = rows(scores, 5.0), [rows(scores, 1.0)] * 3
    for loss, share in ((1.0, 1.0), (5.0, 0.0), (2.0, 0.75), (6.0, -0.25)):
        found = scores.shares(base, own, [rows(scores, loss)] * 3)["one"]
        assert found["share"] == pytest.approx(share)
        low, high = found["interval"]
        assert low <= found["share"] + 1e-9 and found["share"] <= high + 1e-9


def test_weights_climb_to_what_keeps_most_of_the_lesser_share(scores: Any) -> None:
    wanted = {"weights": (0.7, 2.0), "density": 0.3}

    def combined(method: str, rank: int | None, weights: Any, density: float = 0.3) -> Any:
        return SimpleNamespace(weights=weights, density=density)

    def worst(form: Any) -> float:
        away = sum(abs(np.log(a / b)) for a, b in zip(form.weights, wanted["weights"], strict=True))
        return -away - abs(form.density - 0.3)

    aims = SimpleNamespace(skills=SimpleNamespace(combined=combined), worst=worst)
    assert scores.choose(aims, "cat", None) == {"weights": [0.7, 2.0]}
    assert scores.choose(aims, "ties", 8) == {"weights": [0.7, 2.0], "density": 0.3}
