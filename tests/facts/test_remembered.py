"""Numbers that are measured once: kept for the next process, and measured anew where the file is broken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loraloom.facts import device
from loraloom.facts.remembered import cache_folder, remembered


class Measured:
    """A measurement that counts how often it was made."""

    def __init__(self, number: float) -> None:
        self.number, self.times = number, 0

    def __call__(self) -> float:
        self.times += 1
        return self.number


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the number "speed"."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "loraloom" / "speed.json"


def test_a_number_is_measured_once_a_key(cache: Path) -> None:
    measure, other = Measured(2.5), Measured(7.0)
    assert [remembered("speed", "float32", measure) for _ in range(3)] == [2.5, 2.5, 2.5]
    assert remembered("speed", "bfloat16", other) == 7.0
    assert (measure.times, other.times) == (1, 1)
    assert json.loads(cache.read_text()) == {"float32": 2.5, "bfloat16": 7.0}
    assert [path.name for path in cache.parent.iterdir()] == ["speed.json"]


@pytest.mark.parametrize(
    "broken", [b"", b"{", b"\xff\xfe", b"[1]", b'{"float32": "fast"}', b'{"float32": -1.0}', b'{"float32": NaN}', b"[" * 100_000]
)
def test_a_broken_file_counts_as_empty_and_is_replaced(cache: Path, broken: bytes) -> None:
    cache.parent.mkdir()
    cache.write_bytes(broken)
    assert remembered("speed", "float32", Measured(2.5)) == 2.5
    assert json.loads(cache.read_text()) == {"float32": 2.5}


def test_a_folder_that_cannot_be_written_only_costs_the_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert remembered("speed", "float32", Measured(2.5)) == 2.5


@pytest.mark.parametrize("asked", ["", "relative/path"])
def test_the_cache_is_in_the_home_where_no_absolute_path_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", asked)
    assert cache_folder() == tmp_path / ".cache" / "loraloom"


def test_the_rate_of_products_is_kept_by_device_precision_threads_and_torch(cache: Path) -> None:
    device.matmul_flops.cache_clear()
    try:
        rate = device.matmul_flops("cpu")
    finally:
        device.matmul_flops.cache_clear()
    (key, kept), *rest = json.loads(cache.with_name("matmul_flops.json").read_text()).items()
    assert kept == rate > 1e8 and not rest
    for part in ("cpu ", "float32", "threads", "torch 2"):
        assert part in key
