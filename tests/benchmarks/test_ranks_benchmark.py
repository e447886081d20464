"""The benchmark of rank allocations: what counts as a gain, and the committed result says what its
numbers do."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from scripts import load

from loraloom.plan.ranks import TOLERANCE
from loraloom.records import Score

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "ranks"
sys.path.insert(0, str(FOLDER))

import rank_tasks  # noqa: E402

bench: Any = load("ranks")


def trained(method: str, seed: int, cost: float) -> Any:
    costs = tuple(cost + row for row in (0.0, 0.5, 1.0))
    score = Score("test", {"accuracy": 0.5}, costs, (1.0,) * 3)
    return rank_tasks.Trained(rank_tasks.Asked(method, 1.0, seed), score, 100)


def test_a_gain_is_paired_by_seed_and_a_share_of_what_uniform_learns() -> None:
    uniform = [trained("uniform", seed, 1.0 + seed) for seed in range(3)]
    ours = [trained("mlp", seed, 0.9 + seed) for seed in range(3)]
    line = bench.line(ours, uniform, learnt=2.0)
    assert line["gain"] == pytest.approx(0.1)
    assert line["share"] == pytest.approx(0.05)
    # Seeds differ by 1 and rows by half of that; in pairs neither does.
    assert line["gain_se"] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(
    ("share", "error", "said"),
    [(0.1, 0.04, "gains"), (0.1, 0.06, "cannot be told apart"), (-0.1, 0.04, "loses")],
)
def test_two_standard_errors_make_a_verdict(share: float, error: float, said: str) -> None:
    assert bench.verdict(share, error) == said


def test_the_committed_result_is_of_equal_parameters_and_adds_up() -> None:
    if not bench.RESULT.is_file():
        pytest.skip("not measured yet: python benchmarks/ranks/run.py")
    result = json.loads(bench.RESULT.read_text())
    for task in result["tasks"].values():
        methods = task["methods"]
        assert list(methods) == list(rank_tasks.METHODS)
        uniform = methods["uniform"]["parameters"]
        assert all(one["parameters"] <= (1 + TOLERANCE) * uniform for one in methods.values())
        assert all(one["parameters"] >= 0.95 * uniform for one in methods.values())
    for method, told in bench.together(result["tasks"]).items():
        assert told == pytest.approx(result["together"][method])
