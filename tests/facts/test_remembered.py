"""Numbers that are kept for the next process; a broken file counts as empty."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loraloom.facts.remembered import cache_folder, keep, recalled


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the number "speed"."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "loraloom" / "speed.json"


def test_a_number_is_kept_under_its_key(cache: Path) -> None:
    assert recalled("speed", "float32") is None
    keep("speed", "float32", 2.5)
    keep("speed", "bfloat16", 7.0)
    assert (
        recalled("speed", "float32"),
        recalled("speed", "bfloat16"),
        recalled("speed", "float64"),
    ) == (2.5, 7.0, None)
    assert json.loads(cache.read_text()) == {"float32": 2.5, "bfloat16": 7.0}
    assert [path.name for path in cache.parent.iterdir()] == ["speed.json"]


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[1]",
        b'{"float32": "fast"}',
        b'{"float32": -1.0}',
        b'{"float32": NaN}',
        b"[" * 100_000,
    ],
)
def test_a_broken_file_counts_as_empty_and_is_replaced(cache: Path, broken: bytes) -> None:
    cache.parent.mkdir()
    cache.write_bytes(broken)
    assert recalled("speed", "float32") is None
    keep("speed", "float32", 2.5)
    assert json.loads(cache.read_text()) == {"float32": 2.5}


def test_a_folder_that_cannot_be_written_keeps_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    keep("speed", "float32", 2.5)
    assert recalled("speed", "float32") is None


@pytest.mark.parametrize("asked", ["", "relative/path"])
def test_the_cache_is_in_the_home_where_no_absolute_path_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", asked)
    assert cache_folder() == tmp_path / ".cache" / "loraloom"
