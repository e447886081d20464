"""Among settings that are as good on the task, the one that forgets least."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from loraloom.records import Score
from loraloom.search.forgetting import by_forgetting, forgets_least

ROWS = 200


def score(mean: float, seed: int, noise: float = 0.3) -> Score:
    """Costs of rows around a mean, some rows hard for all."""
    hard = np.random.default_rng(0).normal(0, 1, ROWS)
    own = np.random.default_rng(seed).normal(0, noise, ROWS)
    costs = mean + hard - hard.mean() + own - own.mean()
    return Score("confirm", {"loss": mean}, tuple(costs.tolist()), (1.0,) * ROWS)


def test_what_is_within_a_standard_error_is_chosen_by_what_it_forgets() -> None:
    finals = {
        "best": [score(1.0, 1), score(1.02, 2)],
        "near": [score(1.01, 3), score(1.02, 4)],
        "worse": [score(1.3, 5), score(1.3, 6)],
    }
    assert forgets_least(finals, "best", {"best": 3.0, "near": 2.0, "worse": 0.5}) == "near"
    # None forgets less: the task alone decides.
    assert forgets_least(finals, "best", {"best": 1.0, "near": 2.0, "worse": 0.5}) == "best"
    assert forgets_least(finals, "best", {"best": 1.0, "near": 1.0}) == "best"


@pytest.mark.parametrize(("errors", "kept"), [(0.9, "near"), (1.1, "best")])
def test_one_standard_error_is_the_limit(errors: float, kept: str) -> None:
    """Paired: what the rows have in common is no part of the error."""
    hard = np.random.default_rng(0).normal(0, 5, ROWS)
    wobble = np.tile([-0.1, 0.1], ROWS // 2)
    behind = errors * wobble.std(ddof=1) / ROWS**0.5

    def of(costs: Any) -> list[Score]:
        return [Score("confirm", {}, tuple(costs.tolist()), (1.0,) * ROWS)]

    finals = {"best": of(hard), "near": of(hard + behind + wobble)}
    assert forgets_least(finals, "best", {"best": 2.0, "near": 1.0}) == kept


def test_a_setting_of_which_nothing_is_known_is_not_kept_for_it() -> None:
    finals = {"best": [score(1.0, 1)], "near": [score(1.0, 2)]}
    assert forgets_least(finals, "best", {"best": 1.0}) == "best"


def test_the_best_is_looked_at_and_those_as_good_by_what_they_forget() -> None:
    costs = {"a": 0.30, "b": 0.20, "c": 0.22, "d": 0.21, "e": 0.25}
    forgotten = {"a": 0.1, "b": 3.0, "c": 1.0, "d": 2.0, "e": 0.5}
    assert by_forgetting(costs, 0.03, forgotten) == ["b", "c", "d", "e", "a"]
    assert by_forgetting(costs, 0.0, forgotten) == ["b", "d", "c", "e", "a"]
