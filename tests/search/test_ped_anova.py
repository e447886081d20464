"""Our PED-ANOVA gives what Optuna's gives, and what follows from its definition."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from loraloom.search.ped_anova import divergence_of_choices, divergence_of_numbers, good_ones

SHARE = 0.25


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("log", [False, True])
def test_numbers_and_choices_count_as_in_optuna(seed: int, log: bool) -> None:
    import optuna
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    draw = random.Random(seed)
    numbers = [
        10 ** draw.uniform(-5, -1) if log else draw.choice([4.0, 8.0, 16.0, 32.0]) for _ in range(40)
    ]
    choices = [draw.randrange(3) for _ in numbers]
    costs = [
        abs(number - 8) + choice / 3 + draw.gauss(0, 0.1)
        for number, choice in zip(numbers, choices, strict=True)
    ]
    spreads = {
        "number": FloatDistribution(min(numbers), max(numbers), log=log),
        "choice": CategoricalDistribution([0, 1, 2]),
    }
    study = optuna.create_study()
    for number, choice, cost in zip(numbers, choices, costs, strict=True):
        params = {"number": number, "choice": choice}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=spreads, value=cost))
    expected = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=SHARE).evaluate(study)
    good = good_ones(costs, SHARE)
    ours = {
        "number": divergence_of_numbers(numbers, good, log=log),
        "choice": divergence_of_choices(choices, good),
    }
    # Optuna's are over all parameters of one quantile, squared: shares do not feel it.
    assert ours["number"] / sum(ours.values()) == pytest.approx(
        expected["number"] / sum(expected.values()), rel=1e-6
    )


@settings(max_examples=60)
@given(
    values=st.lists(st.floats(1e-6, 1e6), min_size=4, max_size=40),
    costs=st.lists(st.floats(-5, 5), min_size=40, max_size=40),
    log=st.booleans(),
)
def test_a_divergence_is_0_between_equals_and_never_negative(
    values: list[float], costs: list[float], log: bool
) -> None:
    assume(max(values) > 1.001 * min(values))
    good = good_ones(costs[: len(values)], SHARE)
    assert good.any()
    assert np.isfinite(divergence_of_numbers(values, good, log=log))
    assert divergence_of_numbers(values, good, log=log) >= 0
    everyone = np.ones(len(values), dtype=np.bool_)
    assert divergence_of_numbers(values, everyone, log=log) == pytest.approx(0, abs=1e-9)
    assert divergence_of_choices([0, 1] * len(values), np.tile(good, 2)) >= 0


def test_those_that_tie_with_the_last_good_one_are_good() -> None:
    assert good_ones([3.0, 1.0, 1.0, 2.0], 0.25).tolist() == [False, True, True, False]
