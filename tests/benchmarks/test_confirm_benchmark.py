"""Which rows the race gets is decided by a simulation: it runs, and its committed
result bears out the constant."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from loraloom.data.split import LEAST_FOR_RACE

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "search"
sys.path.insert(0, str(FOLDER))

import confirm  # noqa: E402

LOST, HELD = 0.0025, 0.95
"""Of the way to the best setting, what half of the rows may cost; and the share of 95%
intervals that have to hold."""


def cases() -> list[dict[str, Any]]:
    return [case for case in json.loads(confirm.RESULT.read_text())["cases"] if case["task"] != "alike"]


def bears(case: dict[str, Any]) -> bool:
    return case["lost"] <= LOST and case["half"]["held"] >= HELD


def test_the_committed_result_bears_out_how_many_rows_the_race_needs() -> None:
    enough = [case for case in cases() if case["rows"] >= 2 * LEAST_FOR_RACE]
    assert len(enough) == 18 and all(bears(case) for case in enough)
    assert all(case["half"]["sure"] >= case["whole"]["sure"] for case in enough)
    fewer = max(case["rows"] for case in cases() if case["rows"] < 2 * LEAST_FOR_RACE)
    assert not all(bears(case) for case in cases() if case["rows"] == fewer)


def test_settings_that_are_alike_are_hardly_ever_told_apart() -> None:
    for case in json.loads(confirm.RESULT.read_text())["cases"]:
        assert max(case[way]["falsely sure"] for way in confirm.WAYS) <= 0.03


def test_searches_are_simulated_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confirm, "ROWS", (32,))
    monkeypatch.setattr(confirm, "TRIALS", (16,))
    assert confirm.main(["--searches", "6", "--out", str(tmp_path / "c.json")]) == 0
    found = json.loads((tmp_path / "c.json").read_text())["cases"]
    assert {case["task"] for case in found} == set(confirm.TASKS)
    for case in found:
        assert all(0 <= case[way].get("regret", 0.0) <= 1 for way in confirm.WAYS)
    assert "| stories | 16 | 32 |" in capsys.readouterr().out
