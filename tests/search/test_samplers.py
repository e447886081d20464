"""Which sampler speaks when, and what our own ones list."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.samplers import BaseSampler, GPSampler, QMCSampler, TPESampler

from loraloom.errors import ConfigError
from loraloom.search.anchors import anchors
from loraloom.search.decode import decode_space
from loraloom.search.default_space import default_space
from loraloom.search.past import Past
from loraloom.search.samplers import SamplerInputs, make_sampler, one_factor, sobol_points
from loraloom.search.space import BATCH, RANK, RATE, Space

PLAN: dict[str, Any] = {RATE: 3e-4, BATCH: 16, RANK: 16, "adapter.lora_alpha": 32}
WORDS = {"training.lr_scheduler_type": ["linear", "cosine"]}


def speaks(
    name: str, trials: int, pack_size: int, *, asked: int, learned: int, space: Space | None = None
) -> type[BaseSampler]:
    space = space or default_space(PLAN, trials, pack_size)
    sampler = make_sampler(name, SamplerInputs(space, PLAN, trials, pack_size, 0))
    drawn = sampler.next(Past(asked, learned, lambda _: True))
    assert isinstance(drawn, BaseSampler)
    return type(drawn)


@pytest.mark.parametrize(
    ("trials", "pack_size", "asked", "learned", "expected"),
    [
        (16, 8, 9, 9, QMCSampler),
        (16, 8, 10, 4, QMCSampler),
        (16, 8, 10, 5, GPSampler),
        (16, 16, 15, 15, QMCSampler),
        (4, 1, 4, 4, QMCSampler),
        (32, 8, 13, 13, QMCSampler),
        (32, 8, 14, 13, GPSampler),
        (128, 16, 27, 27, QMCSampler),
        (128, 16, 28, 28, TPESampler),
    ],
)
def test_auto_fills_the_space_before_it_asks_a_model(
    trials: int, pack_size: int, asked: int, learned: int, expected: type[BaseSampler]
) -> None:
    assert speaks("auto", trials, pack_size, asked=asked, learned=learned) is expected


def test_auto_takes_tpe_where_choices_have_no_order() -> None:
    space = decode_space({RATE: {"low": 1e-4, "high": 1e-3, "log": True}, **WORDS})
    assert speaks("auto", 16, 8, asked=12, learned=10, space=space) is TPESampler


def test_models_by_name_begin_with_sobol_too() -> None:
    assert speaks("gp", 16, 8, asked=1, learned=0) is QMCSampler
    assert speaks("gp", 16, 8, asked=6, learned=5) is GPSampler
    assert speaks("tpe", 16, 8, asked=12, learned=9) is QMCSampler
    assert speaks("tpe", 16, 8, asked=12, learned=10) is TPESampler


def test_the_share_of_sobol_points_falls_with_the_number_of_trials() -> None:
    assert [sobol_points(trials) for trials in (16, 32, 128)] == [6, 10, 24]


def test_a_sampler_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="there is no sampler `bayes`") as caught:
        make_sampler("bayes", SamplerInputs(Space(()), {}, 1, 1, 0))
    assert caught.value.where == "search.sampler"
    assert "one_factor" in str(caught.value.need)


def test_one_factor_changes_one_setting_at_a_time_nearest_first() -> None:
    space = decode_space({RATE: {"low": 7.5e-5, "high": 1.2e-3, "log": True}, RANK: [8, 16, 32]})
    points = one_factor(space, PLAN, trials=6)
    changed = [
        {key: value for key, value in space.params(point).items() if value != PLAN[key]}
        for point in points
    ]
    assert changed == [
        {RATE: 1.5e-4},
        {RANK: 8},
        {RATE: 6e-4},
        {RANK: 32},
        {RATE: 7.5e-5},
        {RATE: 1.2e-3},
    ]


def test_one_factor_takes_finer_levels_where_trials_are_left() -> None:
    space = decode_space({RATE: {"low": 1e-4, "high": 1.6e-3, "log": True}})
    points = one_factor(space, {RATE: 4e-4}, trials=7)
    rates = [float(point[RATE]) / 1e-4 for point in points]
    assert rates[:4] == pytest.approx([2, 8, 1, 16])
    assert sorted(rates[4:]) == pytest.approx([2**0.5, 2**1.5, 2**2.5, 2**3.5])


@given(st.floats(1e-4, 1e-3), st.sampled_from([8, 16, 32, 64]))
def test_one_factor_never_changes_two(rate: float, rank: int) -> None:
    space = decode_space(
        {RATE: {"low": 1e-4, "high": 1e-3, "log": True}, RANK: [8, 16, 32, 64], **WORDS}
    )
    baseline = {RATE: rate, RANK: rank, "training.lr_scheduler_type": "cosine"}
    centre = space.point(baseline)
    points = one_factor(space, baseline, trials=8)
    assert all(sum(point[key] != centre[key] for key in centre) <= 1 for point in points)
    assert {space.params(point)[RANK] for point in points} == {8, 16, 32, 64}
    assert {space.params(point)["training.lr_scheduler_type"] for point in points} == {
        "linear",
        "cosine",
    }


def test_a_grid_larger_than_the_search_is_seen_in_every_part() -> None:
    space = decode_space(
        {RANK: [8, 16, 32, 64], BATCH: [4, 8, 16, 32], "adapter.lora_dropout": [0.0, 0.05, 0.1]}
    )
    sampler = make_sampler("grid", SamplerInputs(space, PLAN, 12, 4, 1))
    taken: list[dict[str, Any]] = []
    for asked in range(12):
        point = sampler.next(Past(asked, 0, lambda point: point not in taken))
        assert isinstance(point, dict)
        taken.append(point)
    assert all(len({point[key] for point in taken}) > 1 for key in taken[0])


def test_anchors_are_the_plan_its_rate_both_ways_and_the_plan_again() -> None:
    found = anchors(default_space(PLAN, 16, 8), PLAN, 16)
    assert [(anchor.params[RATE], anchor.seed_offset) for anchor in found] == [
        (3e-4, 0),
        (pytest.approx(9e-4), 0),
        (pytest.approx(1e-4), 0),
        (3e-4, 1),
    ]
    assert all(
        anchor.params[RANK] == 16 and anchor.params["adapter.lora_alpha"] == 32 for anchor in found
    )


def test_anchors_stay_in_the_space_and_do_not_repeat() -> None:
    narrow = decode_space({RATE: {"low": 2.9e-4, "high": 6e-4, "log": True}})
    assert [anchor.params[RATE] for anchor in anchors(narrow, PLAN, 16)] == [
        3e-4,
        pytest.approx(6e-4),
        3e-4,
    ]
    assert len(anchors(decode_space({RANK: [8, 16]}), PLAN, 3)) == 1


def test_the_plans_setting_is_kept_as_it_is_even_outside_the_space() -> None:
    outside = decode_space({RATE: {"low": 5e-4, "high": 1e-3, "log": True}})
    assert anchors(outside, PLAN, 16)[0].params == {RATE: 3e-4}
    assert math.isclose(float(outside.point(PLAN)[RATE]), 5e-4)
