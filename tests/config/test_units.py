"""Amounts of memory and time as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloom.config.units import parse_bytes, parse_seconds
from loraloom.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        (4096, 4096),
        ("4096", 4096),
        ("4096 bytes", 4096),
        ("12GiB", 12 * 2**30),
        ("12 gib", 12 * 2**30),
        ("12GB", 12 * 10**9),
        ("8G", 8 * 10**9),
        ("1.5MiB", 3 * 2**19),
        ("2kB", 2000),
        ("1TiB", 2**40),
    ],
)
def test_amounts_of_memory_are_read_as_bytes(text: str | int, amount: int) -> None:
    assert parse_bytes(text) == amount


@pytest.mark.parametrize(
    "text", ["", "GiB", "12 bananas", "-1GiB", "0", 0, "12iB", "1e9", "12GiB 3", "0.2"]
)
def test_wrong_amounts_of_memory_are_refused(text: str | int) -> None:
    with pytest.raises(
        ConfigError, match=r"`limits\.memory` is .* but must be an amount of memory above 0; try 12GiB"
    ):
        parse_bytes(text)


@given(st.integers(1, 2**62))
def test_plain_bytes_are_exact(amount: int) -> None:
    assert parse_bytes(str(amount)) == parse_bytes(amount) == amount


@given(st.integers(1, 4000))
def test_binary_units_are_larger_than_decimal_ones(number: int) -> None:
    for unit in "KMGT":
        assert (
            parse_bytes(f"{number}{unit}iB")
            > parse_bytes(f"{number}{unit}B")
            == parse_bytes(f"{number}{unit}")
        )


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (90, 90),
        (0.5, 0.5),
        ("90", 90),
        ("90s", 90),
        ("30m", 1800),
        ("30 min", 1800),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1d 12h", 129600),
        ("1.5h", 5400),
        ("1H 1M 1S", 3661),
    ],
)
def test_times_are_read_as_seconds(text: str | float, seconds: float) -> None:
    assert parse_seconds(text) == seconds


def test_no_limit_stays_no_limit() -> None:
    assert parse_seconds(None) is None


@pytest.mark.parametrize(
    "text", ["", "0", "0m", -1, "-1m", "soon", "30m2h", "1:30", float("nan"), float("inf")]
)
def test_wrong_times_are_refused(text: str | float) -> None:
    with pytest.raises(
        ConfigError, match=r"`search\.budget` is .* but must be a time above 0; try 30m"
    ) as caught:
        parse_seconds(text, key="search.budget", where="tune.yaml:3")
    assert str(caught.value).startswith("tune.yaml:3: ")


@given(st.integers(0, 9), st.integers(0, 99), st.integers(0, 999), st.integers(1, 9999))
def test_parts_of_a_time_add_up(days: int, hours: int, minutes: int, seconds: int) -> None:
    assert (
        parse_seconds(f"{days}d{hours}h{minutes}m{seconds}s")
        == ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    )
