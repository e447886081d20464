"""Mean costs and paired differences, with errors that hold."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloom.records import Score
from loraloom.search.compare import (
    average,
    mean_cost,
    paired_difference,
    seeds_difference,
    standard_error,
)

costs = st.lists(st.floats(0.0, 10.0), min_size=2, max_size=20)


def score(costs: list[float] | np.ndarray, weights: tuple[float, ...] = ()) -> Score:
    return Score("validation", {}, tuple(float(cost) for cost in costs), weights)


def test_a_cost_is_weighted_by_row() -> None:
    assert mean_cost(score([1.0, 4.0], (3.0, 1.0))) == 1.75
    assert mean_cost(Score("validation", {"loss": 0.7})) == 0.7
    assert math.isnan(mean_cost(Score("validation", {})))


def test_the_standard_error_is_that_of_the_mean_where_weights_are_equal() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(2.0, 1.0, 50)
    assert standard_error(score(values)) == pytest.approx(values.std(ddof=1) / math.sqrt(50))


def test_the_standard_error_is_that_of_many_draws_where_weights_differ() -> None:
    """Against the truth: draw row sets again and again, and look how the weighted mean scatters."""
    rng = np.random.default_rng(1)
    means, errors = [], []
    for _ in range(400):
        weights = rng.integers(1, 30, 200).astype(float)
        drawn = score(rng.normal(1.0, 0.5, 200) + 0.02 * weights, tuple(weights))
        means.append(mean_cost(drawn))
        errors.append(standard_error(drawn))
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.1)


@given(costs, st.floats(-1.0, 1.0))
def test_a_constant_shift_is_certain(values: list[float], shift: float) -> None:
    difference = paired_difference(score([value + shift for value in values]), score(values))
    assert difference.mean == pytest.approx(shift, abs=1e-9)
    assert difference.se == pytest.approx(0.0, abs=1e-9)


@given(costs, st.data())
def test_a_difference_turns_its_sign_with_its_sides(values: list[float], data: st.DataObject) -> None:
    others = data.draw(st.lists(st.floats(0.0, 10.0), min_size=len(values), max_size=len(values)))
    one, two = (
        paired_difference(score(values), score(others)),
        paired_difference(score(others), score(values)),
    )
    assert one.mean == pytest.approx(-two.mean, abs=1e-9)
    assert one.se == pytest.approx(two.se)


def test_pairing_sees_what_two_separate_errors_hide() -> None:
    rng = np.random.default_rng(2)
    hard = rng.gamma(2.0, 1.0, 100)
    better, worse = score(hard), score(hard + 0.05 + rng.normal(0, 0.01, 100))
    assert paired_difference(better, worse).high < 0
    alone = [
        Score("validation", {"loss": mean_cost(s), "loss_se": standard_error(s)})
        for s in (better, worse)
    ]
    assert paired_difference(*alone).high > 0


def test_scores_of_different_rows_are_not_paired() -> None:
    with pytest.raises(ValueError, match="2 rows of validation and 3 rows of validation"):
        paired_difference(score([1.0, 2.0]), score([1.0, 2.0, 3.0]))
    with pytest.raises(ValueError, match="other weights"):
        paired_difference(score([1.0, 2.0], (1.0, 2.0)), score([1.0, 2.0], (1.0, 1.0)))


def test_seeds_add_their_own_spread() -> None:
    rows = np.linspace(1.0, 2.0, 40)
    ours = [score(rows + shift) for shift in (-0.3, 0.0, 0.3)]
    theirs = [score(rows + 0.1)] * 3
    difference = seeds_difference(ours, theirs)
    assert difference.mean == pytest.approx(-0.1)
    assert difference.se == pytest.approx(0.3 / math.sqrt(3))
    with pytest.raises(ValueError, match="2 seeds cannot be paired with 3"):
        seeds_difference(ours[:2], theirs)


def test_an_average_keeps_rows_and_metrics() -> None:
    mean = average(
        [Score("test", {"loss": 1.0, "x": 1.0}, (1.0, 3.0)), Score("test", {"loss": 2.0}, (2.0, 4.0))]
    )
    assert (mean.costs, dict(mean.metrics)) == ((1.5, 3.5), {"loss": 1.5})


def test_windows_of_one_text_are_one_draw() -> None:
    """6 documents of 20 windows each, whose windows share most of what makes them hard:
    the error is that of 6 draws."""
    rng = np.random.default_rng(4)
    means, apart, together = [], [], []
    owners = np.repeat(np.arange(6), 20)
    for _ in range(400):
        costs = rng.normal(0.0, 1.0, 6)[owners] + rng.normal(0.0, 0.3, 120)
        means.append(float(costs.mean()))
        apart.append(standard_error(score(costs)))
        together.append(standard_error(replace(score(costs), clusters=tuple(owners.tolist()))))
    assert np.mean(together) == pytest.approx(np.std(means), rel=0.15)
    assert np.mean(apart) < 0.5 * np.std(means)
