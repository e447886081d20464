"""The plan of packs: costs are found again from ticks that they made, and the pack follows from them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloom.plan.packing import ENOUGH, Sample, TickCosts, fit_costs, plan_pack

COST = st.floats(1e-5, 1.0)


@given(c0=COST, c1=COST, c2=COST)
def test_costs_are_found_again(c0: float, c1: float, c2: float) -> None:
    costs = TickCosts(c0, c1, c2)
    sizes = [(1, 40), (2, 80), (4, 100), (8, 640)]
    found = fit_costs([Sample(k, n, costs.seconds(k, n)) for k, n in sizes])
    for k, n in sizes:
        assert found.seconds(k, n) == pytest.approx(costs.seconds(k, n), rel=1e-3)


@given(c0=COST, c1=COST, c2=COST, tokens=st.integers(1, 4096), most=st.integers(1, 64))
def test_the_pack_is_as_good_as_any_and_the_smallest_such(
    c0: float, c1: float, c2: float, tokens: int, most: int
) -> None:
    costs = TickCosts(c0, c1, c2)
    plan = plan_pack(costs, tokens, most, least=1)
    rates = {k: k * tokens / costs.seconds(k, k * tokens) for k in range(1, most + 1)}
    assert 1 <= plan.pack_size <= most
    assert rates[plan.pack_size] >= (1 - ENOUGH) * max(rates.values()) * (1 - 1e-9)
    assert all(
        rates[k] < (1 - ENOUGH) * max(rates.values()) * (1 + 1e-9) for k in range(1, plan.pack_size)
    )


def test_a_search_gets_its_first_candidates_side_by_side_unless_that_costs_time() -> None:
    assert plan_pack(TickCosts(0.0, 1e-3, 0.0), 100, 16).pack_size == 4
    assert plan_pack(TickCosts(0.0, 1e-3, 0.0), 100, 2).pack_size == 2
    assert plan_pack(TickCosts(1.0, 1e-3, 0.0), 100, 16, least=4).pack_size >= 15


def test_what_costs_nothing_once_is_not_packed() -> None:
    assert plan_pack(TickCosts(0.0, 1e-3, 0.0), 100, 16, least=1).pack_size == 1
    assert plan_pack(TickCosts(10.0, 1e-6, 0.0), 100, 16).pack_size == 16


def test_memory_holds_the_pack_down() -> None:
    assert plan_pack(TickCosts(10.0, 1e-6, 0.0), 100, 16, fits=lambda k: k <= 5).pack_size == 5


def test_no_ticks_are_an_error() -> None:
    with pytest.raises(ValueError, match="no timed ticks"):
        fit_costs([])
