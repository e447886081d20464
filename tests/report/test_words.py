"""Numbers as people read them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloom.report.words import count, duration, gib, number, share, with_error


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.7834, 0.0121, "0.783 ± 0.012"),
        (1.55902, 0.00071, "1.5590 ± 0.0007"),
        (12.34, 1.9, "12.3 ± 1.9"),
        (250.4, 31.0, "250 ± 31"),
        (1.5, math.nan, "1.500"),
        (1.5, 0.0, "1.500"),
        (math.nan, 0.1, "–"),
        (3e9, 1.0, "3e+09"),
        (1.2e-5, 3e-6, "1.2e-5 ± 3e-6"),
        (1.25e-5, math.nan, "1.25e-5"),
        (0.8231234, 3e-6, "0.823123 ± 3e-6"),
        (0.0005, 0.013, "0.001 ± 0.013"),
        (12.3, 1e-12, "12.300000 ± 1e-12"),
        (123456.7, 0.0012, "123456.7000 ± 0.0012"),
    ],
)
def test_a_value_is_rounded_where_its_error_begins(value: float, error: float, text: str) -> None:
    assert with_error(value, error) == text


@given(st.floats(1e-9, 1000), st.floats(1e-5, 100))
def test_rounding_stays_within_the_error(value: float, error: float) -> None:
    shown = float(with_error(value, error).split(" ± ")[0])
    assert abs(shown - value) <= error


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2e-4, "2e-4"),
        (1.234e-3, "1.23e-3"),
        (0.05, "0.05"),
        (0.0, "0"),
        (32.0, "32"),
        (16, "16"),
        (True, "yes"),
        (None, "–"),
        ("all-linear", "all-linear"),
        (("q_proj", "v_proj"), "q_proj, v_proj"),
        ({}, "none"),
        ({"a": 8}, "a: 8"),
        (3e7, "3e7"),
        (math.inf, "inf"),
    ],
)
def test_settings_are_short(value: object, text: str) -> None:
    assert number(value) == text


@given(st.floats(1e-8, 1e8))
def test_a_short_float_is_the_float_to_three_figures(value: float) -> None:
    assert float(number(value)) == pytest.approx(value, rel=0.006)


def test_a_long_list_is_cut_and_counted() -> None:
    assert number([f"layer.{index}" for index in range(30)]).endswith("layer.7, ... (30 in all)")


def test_amounts_have_their_units() -> None:
    assert [count(value) for value in (0, 9_999, 12_345, 1_126_400, 494_032_768, 7_000_000_000)] == [
        "0",
        "9,999",
        "12.3 k",
        "1.13 M",
        "494 M",
        "7 G",
    ]
    assert [gib(value) for value in (0, 3 * 2**20, 2**30 * 3 / 2)] == ["–", "3 MiB", "1.5 GiB"]
    assert [duration(value) for value in (0.31, 42.4, 59.6, 200, 3900)] == [
        "0.3 s",
        "42 s",
        "1 min 00 s",
        "3 min 20 s",
        "1 h 05 min",
    ]
    assert [share(*pair) for pair in ((1, 0), (57, 100_000), (1, 4))] == ["–", "0.057%", "25%"]
