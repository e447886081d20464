"""The space: what users write becomes dimensions, and points and settings lead to each other."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, Literal

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloom.config.decode import load_config
from loraloom.errors import ConfigError
from loraloom.search.decode import decode_space
from loraloom.search.default_space import default_space
from loraloom.search.space import ALPHA, BATCH, RANK, RATE

PLAN: dict[str, Any] = {
    RATE: 3e-4,
    BATCH: 16,
    RANK: 16,
    ALPHA: 32.0,
    "adapter.lora_dropout": 0.05,
    "adapter.target_modules": "all-linear",
    "training.warmup_ratio": 0.06,
    "training.weight_decay": 0.0,
    "adapter.lora_plus_ratio": None,
}
WORDS = "training.lr_scheduler_type"


def test_ranks_and_batch_sizes_are_searched_by_their_logarithm() -> None:
    space = decode_space({RANK: [8, 16, 32], BATCH: {"low": 4, "high": 64}})
    assert space.distributions() == {
        RANK: optuna.distributions.IntDistribution(3, 5),
        BATCH: optuna.distributions.IntDistribution(2, 6),
    }
    assert space.params({RANK: 4, BATCH: 6}) == {RANK: 16, BATCH: 64}


def test_numbers_with_gaps_keep_their_order_and_words_stay_apart() -> None:
    space = decode_space({RANK: [64, 8, 32], WORDS: ["linear", "cosine"]})
    assert space.params({RANK: 0, WORDS: '"cosine"'}) == {RANK: 8, WORDS: "cosine"}
    assert space.params({RANK: 2, WORDS: '"linear"'})[RANK] == 64
    assert space.categorical
    assert not decode_space({RANK: [8, 64]}).categorical


@pytest.mark.parametrize("asked", [[2e-4], {"low": 2e-4, "high": 2e-4, "log": True}])
def test_a_single_value_is_set_and_not_searched(asked: Any) -> None:
    space = decode_space({RATE: asked, RANK: [8, 16]})
    assert set(space.distributions()) == {RANK}
    assert space.params({RANK: 3}) == {RATE: pytest.approx(2e-4), RANK: 8}


def test_a_range_of_a_number_stays_a_number_even_if_yaml_read_whole_ones_or_text() -> None:
    space = decode_space(
        {
            "training.num_train_epochs": {"low": 1, "high": 3},
            RATE: {"low": "5e-5", "high": "1e-3", "log": True},
        }
    )
    distributions = space.distributions()
    assert distributions["training.num_train_epochs"] == optuna.distributions.FloatDistribution(1.0, 3.0)
    assert distributions[RATE] == optuna.distributions.FloatDistribution(5e-5, 1e-3, log=True)


def test_a_step_that_misses_the_high_end_stops_before_it() -> None:
    space = decode_space({"adapter.lora_dropout": {"low": 0.0, "high": 0.25, "step": 0.1}})
    assert space.size == 3
    assert space.clip({"adapter.lora_dropout": 0.9}) == {"adapter.lora_dropout": pytest.approx(0.2)}


def test_lists_of_module_names_come_back_as_they_were() -> None:
    space = decode_space({"adapter.target_modules": ["all-linear", ["q_proj", "v_proj"]]})
    named = {"adapter.target_modules": ("q_proj", "v_proj")}
    assert space.params(space.point(named)) == named


@pytest.mark.parametrize(
    "asked", [{"adapter.rr": [8]}, {RANK: []}, {RANK: [0, 8]}, {RATE: {"low": 1e-3, "high": 1e-4}}]
)
def test_a_space_that_python_hands_over_is_refused_as_one_in_a_file(asked: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        decode_space(asked)
    with pytest.raises(ConfigError) as in_a_file:
        load_config(flags={"search.space": asked})
    assert str(caught.value).removeprefix("search.space: ") == str(in_a_file.value).removeprefix(
        "command line: "
    )
    assert caught.value.exit_code == 2


def test_auto_is_refused_however_often_python_has_made_such_a_type() -> None:
    """`Literal["auto"]` is one object only as long as typing's cache holds it."""
    for number in range(1_000):
        assert Literal[number] is not None  # type: ignore[valid-type]
    with pytest.raises(ConfigError):
        decode_space({RATE: ["auto", 1e-4]})


def test_alpha_follows_a_searched_rank_and_nothing_else() -> None:
    follows = decode_space({RANK: [8, 16, 64]}).tied_to(PLAN)
    assert follows.params(follows.point({RANK: 64})) == {RANK: 64, ALPHA: 128.0}
    free = decode_space({RANK: [8, 16], ALPHA: [16, 32]}).tied_to(PLAN)
    assert free.params(free.point({RANK: 8, ALPHA: 32})) == {RANK: 8, ALPHA: 32.0}
    assert ALPHA not in decode_space({RATE: [1e-4, 2e-4]}).tied_to(PLAN).exactly(PLAN)


def test_the_grid_holds_every_choice_and_cuts_ranges_to_fit() -> None:
    space = decode_space({RANK: [8, 16, 32], RATE: {"low": 1e-4, "high": 1e-3, "log": True}})
    grid = space.grid(trials=16)
    assert len(grid) == 15
    assert len({tuple(point.items()) for point in grid}) == 15
    rates = sorted({float(point[RATE]) for point in grid})
    assert [high / low for low, high in pairwise(rates)] == pytest.approx([10**0.25] * 4)
    assert len(space.grid(trials=2)) == 6


@pytest.mark.parametrize(
    ("trials", "pack_size", "count", "last"),
    [
        (1, 1, 1, RATE),
        (4, 4, 1, RATE),
        (16, 8, 3, RANK),
        (32, 8, 6, "training.warmup_ratio"),
        (128, 16, 9, "adapter.lora_plus_ratio"),
        (32, 32, 4, "adapter.lora_dropout"),
    ],
)
def test_more_candidates_search_more_dimensions(
    trials: int, pack_size: int, count: int, last: str
) -> None:
    keys = [dimension.key for dimension in default_space(PLAN, trials, pack_size).dimensions]
    assert (len(keys), keys[-1]) == (count, last)


def test_the_rate_lies_around_the_plans_and_under_its_cap() -> None:
    rate = default_space(PLAN, 4, 2)[RATE].distribution
    assert isinstance(rate, optuna.distributions.FloatDistribution)
    assert (rate.low, rate.high, rate.log) == (pytest.approx(7.5e-5), pytest.approx(1e-3), True)
    wide = default_space(PLAN, 4, 2, {RATE: 2e-3})[RATE].distribution
    assert isinstance(wide, optuna.distributions.FloatDistribution)
    assert wide.high == pytest.approx(1.2e-3)


def test_caps_bound_rank_and_batch_but_never_shut_out_the_plan() -> None:
    space = default_space(PLAN, 16, 8, {RANK: 32, BATCH: 8})
    assert space[RANK].levels(0) == (3, 4, 5)
    assert space[BATCH].levels(0) == (2, 3, 4)
    small = default_space({**PLAN, RANK: 4, BATCH: 2}, 16, 8)
    assert small.clip({RANK: 4, BATCH: 2, RATE: 3e-4})[RANK] == 4
    assert small.clip({RANK: 4, BATCH: 2, RATE: 3e-4})[BATCH] == 2


def test_modules_that_the_user_named_are_not_searched() -> None:
    named = {**PLAN, "adapter.target_modules": ("q_proj", "v_proj")}
    assert "adapter.target_modules" in default_space(PLAN, 128, 16)
    assert "adapter.target_modules" not in default_space(named, 128, 16)


def test_the_rate_moves_with_batch_and_scale_and_stays_under_the_cap() -> None:
    space = default_space(PLAN, 128, 16)
    middle = space.point(PLAN)
    larger_batch = space.params({**middle, BATCH: 6})
    assert larger_batch[RATE] == pytest.approx(3e-4 * 2)
    half_scale = space.params({**middle, "adapter.scale": middle["adapter.scale"] - 1})  # type: ignore[operator]
    assert (half_scale[ALPHA], half_scale[RATE]) == (16.0, pytest.approx(6e-4))
    capped = space.params({**middle, BATCH: 6, RATE: 1e-3})
    assert capped[RATE] == pytest.approx(1e-3)
    assert "adapter.scale" not in capped


@given(data=st.data(), trials=st.sampled_from([4, 16, 32, 128]))
def test_the_nearest_point_of_a_points_settings_is_the_point(data: st.DataObject, trials: int) -> None:
    """Settings and points lead to each other, save where the cap cut a rate or its four
    digits round it."""
    space = default_space(PLAN, trials, 2)
    point = {
        dimension.key: data.draw(st.sampled_from(dimension.levels(7)), label=dimension.key)
        for dimension in space.searched
    }
    params = space.params(point)
    back = space.point(params)
    assert {key: value for key, value in back.items() if key != RATE} == {
        k: v for k, v in point.items() if k != RATE
    }
    if params[RATE] < 1e-3:
        assert math.isclose(float(back[RATE]), float(point[RATE]), rel_tol=1e-3)
    assert space.params(back) == {**params, RATE: pytest.approx(params[RATE], rel=1e-3)}


@given(
    st.fixed_dictionaries(
        {RATE: st.floats(1e-6, 1.0), BATCH: st.integers(1, 999), RANK: st.integers(1, 999)}
    )
)
def test_clipping_ends_inside_and_changes_nothing_twice(params: dict[str, Any]) -> None:
    space = decode_space(
        {RATE: {"low": 1e-4, "high": 1e-3, "log": True}, BATCH: [4, 8, 16], RANK: {"low": 3, "high": 40}}
    )
    once = space.clip(params)
    assert 1e-4 <= once[RATE] <= 1e-3
    assert once[BATCH] in (4, 8, 16)
    assert 3 <= once[RANK] <= 40
    assert space.clip(once) == once
