"""The page benchmark watches runs as a driver writes them, and its committed result has its parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from scripts import load

pytest.importorskip("starlette", reason="needs starlette: pip install 'loraloom[serve]'")
bench: Any = load("page")


def test_a_search_as_its_driver_would_have_written_it(tmp_path: Path) -> None:
    from loraloom.web.view import View

    run = bench.build_search(tmp_path, 20)
    view = View(run.folder)
    view.refresh()
    shown = json.loads(view.snapshot())
    rows = [value for name, value in shown["pieces"].items() if name.startswith("row:")]
    assert len(rows) == 20 and {row["status"] for row in rows} == {"completed", "pruned"}
    measured = shown["figures"][0]["curves"]
    assert len(measured["t0000"]["step"]) == bench.STEPS // bench.SCORED_EVERY
    run.close()


def test_the_committed_result_has_parts_of_the_script_alone() -> None:
    known = json.loads(bench.RESULT.read_text(encoding="utf-8"))
    assert {"drawn", "screen", "memory", "tabs"} <= set(known) <= set(bench.PARTS)
    assert known["tabs"]["share_of_a_core"] < 0.05
