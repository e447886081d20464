"""The driver benchmark compares sources that decide the same, and its committed result
says what its README says."""

from __future__ import annotations

import json
from typing import Any

from scripts import load

bench: Any = load("driver")
workers: Any = load("driver", "workers")


def test_the_same_search_decides_the_same_and_is_played_to_its_end() -> None:
    first, second = bench.simulate("auto", 12), bench.simulate("auto", 12)
    assert first["whole"] and first["asked"] == 12
    assert first["decided"] == second["decided"] != bench.simulate("careful", 12)["decided"]


def test_the_committed_result_has_every_case_and_both_sources_decided_the_same() -> None:
    cases = json.loads(bench.RESULT.read_text(encoding="utf-8"))["cases"]
    pairs = [(case["after"]["pruner"], case["after"]["candidates"]) for case in cases]
    assert pairs == [(pruner, count) for pruner in bench.PRUNERS for count in bench.CANDIDATES]
    for case in cases:
        assert case["after"]["whole"]
        assert case["before"]["decided"] == case["after"]["decided"] or not case["before"]["whole"]
        assert case["after"]["report_ms"] < 2.0 or case["after"]["candidates"] > 400


def test_fake_workers_take_a_search_to_its_end() -> None:
    told = workers.measured("auto", 12)
    assert told["candidates"] == 12 and told["scores"] >= 12 and told["run.json"]["count"] >= 1


def test_the_committed_search_over_many_workers_was_whole_and_cheap() -> None:
    cases = json.loads(workers.RESULT.read_text(encoding="utf-8"))["cases"]
    assert [case["pruner"] for case in cases] == list(workers.PRUNERS)
    for case in cases:
        assert (case["candidates"], case["workers"]) == (workers.CANDIDATES, workers.WORKERS)
        assert case["driver_cpu_seconds"] < 60
        assert case["run.json"]["largest_ms"] < 50
