"""How many candidates a search tries, and how large its race is, where nobody says."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from loraloom.config.asked import Config, LimitsConfig, SearchConfig
from loraloom.plan import time
from loraloom.plan.planner import Facts, make_plan
from loraloom.plan.rules.trials import LEVELS, PATIENCE
from loraloom.plan.time import runs_of_search

Make = Callable[..., Facts]


def speed(monkeypatch: pytest.MonkeyPatch, flops: float) -> None:
    monkeypatch.setattr(time, "matmul_flops", lambda kind, dtype: flops)


@pytest.mark.parametrize(("flops", "expected", "seeds"), [(1e16, 16, 3), (1e7, 4, 2)])
def test_a_fast_machine_compares_more(
    facts: Make, monkeypatch: pytest.MonkeyPatch, flops: float, expected: int, seeds: int
) -> None:
    speed(monkeypatch, flops)
    plan = make_plan(Config(), facts("tiny"))
    assert (plan.trials, plan.seeds_for_finalists) == (expected, seeds)
    assert ("--trials 16" in plan.settings["search.trials"].reason) == (expected < 16)


def test_what_is_forecast_is_what_one_waits_for(facts: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over all speeds of machines: the search ends in time, or it is the smallest; and no larger one would end in time."""
    met: set[int] = set()
    for exponent in range(60, 160, 2):
        speed(monkeypatch, 10 ** (exponent / 10))
        plan = make_plan(Config(), facts("tiny"))
        met.add(plan.trials)
        assert plan.trials == LEVELS[-1] or plan.forecast["time"].value <= PATIENCE
        if plan.trials < LEVELS[0]:
            more = make_plan(Config(search=SearchConfig(trials=plan.trials * 2)), facts("tiny"))
            assert more.forecast["time"].value > PATIENCE
    assert met == set(LEVELS)


def test_more_time_allows_more_and_a_number_is_kept(facts: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    speed(monkeypatch, 1e7)
    assert make_plan(Config(limits=LimitsConfig(time="300d")), facts("tiny")).trials == 16
    asked = make_plan(Config(search=SearchConfig(trials=40, seeds_for_finalists=1)), facts("tiny"))
    assert (asked.trials, asked.seeds_for_finalists) == (40, 1)
    assert runs_of_search(asked.settings) == 40, "with one seed nothing is trained again"
    assert asked.settings["search.trials"].reason == "you asked"


def test_the_race_is_part_of_the_time(facts: Make) -> None:
    with_race, without = (
        make_plan(Config(search=SearchConfig(trials=16, seeds_for_finalists=seeds)), facts("tiny")) for seeds in (3, 1)
    )
    assert (runs_of_search(with_race.settings), runs_of_search(without.settings)) == (25, 16)
    assert with_race.forecast["time"].parts["training"] == pytest.approx(25 / 16 * without.forecast["time"].parts["training"])
