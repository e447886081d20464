"""The benchmark of forecasts: what its errors are of, and that each run is alone, on one thread."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from scripts import BENCHMARKS, load


@pytest.fixture(scope="module")
def own() -> Any:
    sys.path.insert(0, str(BENCHMARKS / "advice_memory"))
    try:
        return load("advice_memory", "own")
    finally:
        sys.path.remove(str(BENCHMARKS / "advice_memory"))
        sys.modules.pop("shapes", None)


def test_an_error_is_of_the_whole_process_and_of_what_the_run_added(own: Any) -> None:
    record = {
        "forecast_bytes": 1100,
        "measured_bytes": 1000,
        "before_bytes": 400,
        "parts": {"runtime": 440, "weights": 660},
    }
    judged = own.judged(record)
    assert judged["error"] == pytest.approx(0.1) and judged["error_without_runtime"] == pytest.approx(
        0.1
    )


def test_a_run_has_a_process_and_one_thread_to_itself(own: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[list[str], dict[str, str]]] = []

    def run(command: list[str], *, env: dict[str, str], **_: Any) -> Any:
        asked.append((command, env))
        return SimpleNamespace(returncode=0, stdout='a warning\n{"probed_bytes": 7}\n', stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert own.alone("probed", own.SHAPES[0]) == {"probed_bytes": 7}
    ((command, environment),) = asked
    assert command[0] == sys.executable and command[2] == "probed"
    assert json.loads(command[3])["family"] == own.SHAPES[0].family
    assert environment["OMP_NUM_THREADS"] == "1"


def test_shapes_differ_and_at_least_sixteen_are_run(own: Any) -> None:
    names = [shape.name for shape in own.SHAPES]
    assert len(set(names)) == len(names) >= 16
    assert {shape.checkpointing for shape in own.SHAPES} == {True, False}
    assert {shape.dtype for shape in own.SHAPES} == {"float32", "bfloat16"}
