"""The time forecast: how it scales, and that its parts are its whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import GPU

from loraloom.config.asked import (
    AdapterConfig,
    Config,
    LimitsConfig,
    PreferenceConfig,
    TrainingConfig,
)
from loraloom.plan.planner import Facts, make_plan
from loraloom.plan.time import (
    EVALUATIONS,
    forecast_time,
    held_out_tokens,
    operations_per_token,
    seconds_at,
    trainings_of_search,
    with_measured,
)
from loraloom.records import PreferenceLoss

Make = Callable[..., Facts]


def test_parts_sum_to_the_value_inside_its_range(facts: Make) -> None:
    estimate = make_plan(Config(), facts("tiny")).forecast["time"]
    assert sum(estimate.parts.values()) == pytest.approx(estimate.value)
    assert estimate.low < estimate.value < estimate.high and estimate.unit == "seconds"


def test_training_a_frozen_model_costs_four_operations_a_weight_and_token(facts: Make) -> None:
    at = facts("8b", device=GPU, length=64)
    operations = operations_per_token(make_plan(Config(), at).case)
    assert 4 * at.model.linear_parameters < operations < 4.6 * at.model.linear_parameters


def test_twice_the_epochs_take_twice_the_training(facts: Make) -> None:
    at = facts("8b", device=GPU)
    times = [
        make_plan(Config(training=TrainingConfig(num_train_epochs=epochs)), at)
        .forecast["time_one"]
        .parts["training"]
        for epochs in (1, 2)
    ]
    assert times[1] == pytest.approx(2 * times[0])


@pytest.mark.parametrize(
    ("length", "candidates_a_pass"), [(16, 8), (10_000, 1)], ids=["short rows", "long rows"]
)
def test_packing_saves_the_cost_of_layers_as_far_as_a_pass_has_room(
    facts: Make, length: int, candidates_a_pass: int
) -> None:
    at = facts("tiny", length=length)
    case = make_plan(Config(training=TrainingConfig(per_device_train_batch_size=1)), at).case
    alone, packed = (forecast_time(case, trials=8, packed=pack_size).parts for pack_size in (1, 8))
    assert packed["layers"] == pytest.approx(alone["layers"] / candidates_a_pass)
    assert packed["training"] == alone["training"]


def test_ranks_that_are_measured_first_are_a_part(facts: Make) -> None:
    at = facts("8b", device=GPU, rows=4_000, length=64)
    seconds = {
        asked: make_plan(Config(adapter=AdapterConfig(rank_allocation=asked)), at).forecast["time"].parts
        for asked in ("uniform", "mlp", "eva", "energy")
    }
    assert not {"ranks"} & ({*seconds["uniform"]} | {*seconds["mlp"]})
    # 256 rows forwards, beside a quarter of 4,000 rows and more, forwards and backwards
    assert 0 < seconds["eva"]["ranks"] < seconds["energy"]["ranks"] / 4
    alone = make_plan(Config(), at).forecast["time_one"].parts
    assert seconds["energy"]["ranks"] == pytest.approx(
        0.25 * (alone["training"] + alone["layers"]), rel=0.05
    )


def test_the_reference_and_the_kl_of_kto_are_parts(facts: Make) -> None:
    def parts(sides: int, *loss: PreferenceLoss) -> Mapping[str, float]:
        judged = (2_500, 2_500) if sides == 1 else None
        at = facts("8b", device=GPU, task="causal_lm", sides=sides, judged=judged, format="preference")
        at = replace(at, data=replace(at.data, task="preference", confirm_rows=500))
        return make_plan(Config(preference=PreferenceConfig(loss_type=loss)), at).forecast["time"].parts

    pairs, free, judged = parts(2, "sigmoid"), parts(2, "simpo"), parts(1, "kto")
    # 5,000 rows to train on, 500 to choose on and 500 for the race
    assert free["reference"] == pytest.approx(pairs["reference"] / 6, rel=0.05)
    assert "kl" not in pairs and judged["reference"] == pytest.approx(pairs["reference"] / 2, rel=0.05)
    # two forwards for each forward and backward
    assert judged["kl"] == pytest.approx(judged["training"], rel=0.2)


def test_a_line_through_ticks_is_followed_to_the_usual_number_of_tokens() -> None:
    ticks = [(tokens, 0.1 + 0.002 * tokens) for tokens in (40, 60, 110)]
    assert seconds_at(80, ticks) == pytest.approx(0.26)
    assert seconds_at(80, [(40, 0.3), (40, 0.1)]) == pytest.approx(0.2), (
        "ticks of one size say nothing of others"
    )


@given(
    ticks=st.lists(st.tuples(st.integers(1, 500), st.floats(0.01, 10.0)), min_size=1, max_size=12),
    tokens=st.integers(1, 500),
)
def test_more_tokens_take_no_less_and_at_most_in_proportion(
    ticks: list[tuple[int, float]], tokens: int
) -> None:
    one, twice = seconds_at(tokens, ticks), seconds_at(2 * tokens, ticks)
    assert 0 <= one * (1 - 1e-9) <= twice <= 2 * one * (1 + 1e-9)


def test_what_was_measured_stands_for_all_packs_of_a_search(facts: Make) -> None:
    at = facts("tiny")
    plan = make_plan(
        Config(training=TrainingConfig(max_steps=10), limits=LimitsConfig(max_packed=3)), at
    )
    measured = with_measured(plan.forecast["time"], plan.case, 0.5, 2.0)
    packs = math.ceil(trainings_of_search(plan.case) / 3)
    windows = plan.values()["training.gradient_accumulation_steps"]
    assert measured.parts["training"] == packs * 10 * windows * 0.5
    assert measured.parts["evaluation"] == packs * EVALUATIONS * 2.0
    assert sum(measured.parts.values()) == measured.value


def test_a_translation_s_rows_are_as_long_as_the_longer_of_source_and_target(facts: Make) -> None:
    both = facts("t5", rows=100, length=50, tokens=100 * 80, validation_tokens=20 * 80)
    assert held_out_tokens(both.data) == 20 * 50
    assert held_out_tokens(facts("tiny").data) == facts("tiny").data.validation_tokens
