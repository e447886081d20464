"""How many candidates a search tries, and how large its race is, where nobody says."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from loraloom.config.asked import Config, LimitsConfig, SearchConfig
from loraloom.plan import time
from loraloom.plan.planner import Facts, make_plan
from loraloom.plan.rules.trials import LEVELS, PATIENCE
from loraloom.plan.time import trainings_of_search
from loraloom.search.pruners.halving import whole_trainings

Make = Callable[..., Facts]


def speed(monkeypatch: pytest.MonkeyPatch, flops: float) -> None:
    monkeypatch.setattr(time, "matmul_flops", lambda kind, dtype: flops)


@pytest.mark.parametrize(("flops", "expected", "seeds"), [(1e16, 32, 3), (1e7, 4, 2)])
def test_a_fast_machine_compares_more(
    facts: Make, monkeypatch: pytest.MonkeyPatch, flops: float, expected: int, seeds: int
) -> None:
    speed(monkeypatch, flops)
    plan = make_plan(Config(), facts("tiny"))
    assert (plan.trials, plan.seeds_for_finalists) == (expected, seeds)
    assert ("--trials 32" in plan.settings["search.trials"].reason) == (expected < 32)


def test_what_is_forecast_is_what_one_waits_for(facts: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over all speeds of machines: the search ends in time, or it is the smallest; and
    no larger one would end in time."""
    met: set[int] = set()
    for exponent in range(60, 160, 2):
        speed(monkeypatch, 10 ** (exponent / 10))
        plan = make_plan(Config(), facts("tiny"))
        met.add(plan.trials)
        assert plan.trials == LEVELS[-1] or plan.forecast["time"].value <= PATIENCE
        if plan.trials < LEVELS[0]:
            larger = LEVELS[LEVELS.index(plan.trials) - 1]
            more = make_plan(Config(search=SearchConfig(trials=larger)), facts("tiny"))
            assert more.forecast["time"].value > PATIENCE
    assert met == set(LEVELS)


def test_more_time_allows_more_and_a_number_is_kept(
    facts: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    speed(monkeypatch, 1e7)
    assert make_plan(Config(limits=LimitsConfig(time="300d")), facts("tiny")).trials == LEVELS[0]
    asked = make_plan(Config(search=SearchConfig(trials=40, seeds_for_finalists=1)), facts("tiny"))
    assert (asked.trials, asked.seeds_for_finalists) == (40, 1)
    assert trainings_of_search(asked.case) == whole_trainings(40), (
        "with one seed nothing is trained again"
    )
    assert asked.settings["search.trials"].reason == "you asked"


def test_the_race_is_part_of_the_time(facts: Make) -> None:
    with_race, without = (
        make_plan(Config(search=SearchConfig(trials=16, seeds_for_finalists=seeds)), facts("tiny"))
        for seeds in (3, 1)
    )
    search = whole_trainings(16)
    assert [trainings_of_search(plan.case) for plan in (with_race, without)] == [search + 9, search]
    share = with_race.forecast["time"].parts["training"] / without.forecast["time"].parts["training"]
    assert share == pytest.approx((search + 9) / search)


def test_a_search_that_starts_wide_is_forecast_to_be_cut_and_a_careful_one_is_not(facts: Make) -> None:
    for pruner, trainings in (("auto", whole_trainings(16)), ("careful", 16.0), ("none", 16.0)):
        plan = make_plan(
            Config(search=SearchConfig(trials=16, pruner=pruner, seeds_for_finalists=1)), facts("tiny")
        )
        assert trainings_of_search(plan.case) == trainings
