"""Forecasts after measurement: by a probe, and by earlier runs."""

from __future__ import annotations

import pytest

from loraloom.plan.correction import PROBED, Measurement, by_history, by_probe
from loraloom.records import Estimate

FORECAST = Estimate(1000.0, 900.0, 1100.0, "bytes", {"weights": 600.0, "runtime": 400.0})


def test_a_probe_stands_in_for_the_forecast_and_leaves_the_runtime_alone() -> None:
    made = by_probe(FORECAST, 1300.0)
    assert made.estimate.value == 1300.0
    assert made.estimate.parts == pytest.approx({"weights": 900.0, "runtime": 400.0})
    assert made.estimate.high / 1300.0 - 1 == pytest.approx(PROBED)
    assert "130% of the forecast" in made.note


def test_a_probe_that_measured_nothing_is_our_own_fault() -> None:
    with pytest.raises(ValueError, match="positive amount"):
        by_probe(FORECAST, 0.0)


def test_earlier_runs_correct_by_their_median_and_are_named() -> None:
    earlier = [
        Measurement("one", 1000.0, 1100.0),
        Measurement("two", 900.0, 990.0),
        Measurement("odd", 1000.0, 1150.0),
    ]
    made = by_history(FORECAST, earlier)
    assert made.estimate.value == pytest.approx(1100.0)
    assert sum(made.estimate.parts.values()) == pytest.approx(made.estimate.value)
    assert "3 earlier runs (one, two, odd)" in made.note


def test_runs_that_are_not_alike_say_nothing() -> None:
    made = by_history(FORECAST, [Measurement("far", 5000.0, 9000.0), Measurement("empty", 0.0, 10.0)])
    assert made.estimate == FORECAST and made.note == ""
