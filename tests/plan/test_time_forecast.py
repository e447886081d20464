"""The time forecast: how it scales, and that its parts are its whole."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from machines import GPU

from loraloom.config.asked import Config, TrainingConfig
from loraloom.plan.planner import Facts, make_plan
from loraloom.plan.time import forecast_time, operations_per_token

Make = Callable[..., Facts]


def test_parts_sum_to_the_value_inside_its_range(facts: Make) -> None:
    estimate = make_plan(Config(), facts("tiny")).forecast["time"]
    assert sum(estimate.parts.values()) == pytest.approx(estimate.value)
    assert estimate.low < estimate.value < estimate.high and estimate.unit == "seconds"


def test_training_a_frozen_model_costs_four_operations_a_weight_and_token(facts: Make) -> None:
    at = facts("8b", device=GPU, length=64)
    operations = operations_per_token(at, make_plan(Config(), at).settings)
    assert 4 * at.model.linear_parameters < operations < 4.6 * at.model.linear_parameters


def test_twice_the_epochs_take_twice_the_training(facts: Make) -> None:
    at = facts("8b", device=GPU)
    times = [
        make_plan(Config(training=TrainingConfig(num_train_epochs=epochs)), at).forecast["time_one"].parts["training"]
        for epochs in (1, 2)
    ]
    assert times[1] == pytest.approx(2 * times[0])


@pytest.mark.parametrize(("length", "candidates_a_pass"), [(16, 8), (10_000, 1)], ids=["short rows", "long rows"])
def test_packing_saves_the_cost_of_layers_as_far_as_a_pass_has_room(facts: Make, length: int, candidates_a_pass: int) -> None:
    at = facts("tiny", length=length)
    decided = make_plan(Config(training=TrainingConfig(per_device_train_batch_size=1)), at).settings
    alone, packed = (forecast_time(at, Config(), decided, trials=8, packed=slots).parts for slots in (1, 8))
    assert packed["layers"] == pytest.approx(alone["layers"] / candidates_a_pass)
    assert packed["training"] == alone["training"]
