"""The benchmark of bases in few bits: every part runs in small, ratios are formed as said, and the
table is that of the committed result."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scripts import BENCHMARKS, load

pytest.importorskip("bitsandbytes", reason="needs bitsandbytes: pip install 'loraloom[quant]'")

HERE = BENCHMARKS / "memory"
sys.path.insert(0, str(HERE))

promises: Any = load("memory", "promises")
COMMITTED = HERE / "result.json"
PARTS = ("held", "probed", "timed", "float32", "billion")


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("memory") / "result.json"
    nowhere = out.parent / "none"
    words = ["--quick", "--out", str(out), "--shared", str(nowhere)]
    done = subprocess.run(
        [sys.executable, str(HERE / "run.py"), *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "next: --shared FOLDER" in done.stderr
    assert str(out.parent) not in out.read_text()
    return json.loads(out.read_text())


def test_every_part_runs_in_small(quick: dict[str, Any]) -> None:
    assert set(PARTS) <= set(quick)
    kinds = {one["arm"]["kind"] for one in quick["timed"]}
    assert kinds == {"bf16", "nf4", "int8", "peft nf4"}
    assert all(one["step_ms"] > 0 for one in quick["timed"])
    assert all(one["forecast_bytes"] > one["forecast_parts"]["runtime"] for one in quick["held"])
    assert all(one["probed_bytes"] > 0 and one["probed_ms"] > 0 for one in quick["probed"])
    assert quick["billion"]["measured_bytes"] > quick["billion"]["base_bytes"] > 0


def test_both_sides_train_as_many_numbers(quick: dict[str, Any]) -> None:
    assert len({one["trained"] for one in quick["timed"]}) == 1


def test_a_base_in_few_bits_is_smaller(quick: dict[str, Any]) -> None:
    held = {one["arm"]["kind"]: one["base_bytes"] for one in quick["held"]}
    assert held["nf4"] < held["int8"] < held["bf16"]


def test_the_loss_is_compared_on_the_same_rows_and_seeds(shared: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(HERE / "loss_gap.py"), str(shared), "--quick"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    tasks = json.loads(done.stdout.splitlines()[-1])
    assert len({task["data"] for task in tasks}) == 2 and len({task["rate"] for task in tasks}) == 2
    for task in tasks:
        ways = {one["name"]: one for one in task["ways"]}
        dense = ways.pop("bf16")
        assert {"nf4", "int8"} <= set(ways) and "gap" not in dense
        for one in ways.values():
            assert one["gap"] == pytest.approx(one["loss"] - dense["loss"], abs=1e-6)
            assert one["gap_half_width"] > 0 and len(one["losses"]) == task["seeds"]


def test_what_loftq_closes_is_a_ratio_of_means_with_its_spread_over_seeds() -> None:
    def task(*loftq: float) -> dict[str, Any]:
        losses = {"bf16": (1.0, 2.0), "nf4": (1.2, 2.2), promises.LOFTQ: loftq}
        return {"ways": [{"name": name, "losses": own} for name, own in losses.items()]}

    assert promises.closed(task(1.05, 2.05)) == pytest.approx((0.75, 0.0))
    share, half = promises.closed(task(1.0, 2.1))
    assert share == pytest.approx(0.75) and half == pytest.approx(0.5)


def timed(kind: str, packed: int, ms: float, number: int) -> dict[str, Any]:
    arm = {"kind": kind, "packed": packed, "tokens": 32}
    return {"arm": arm, "round": number, "threads": 1, "step_ms": ms, "peak_bytes": 1}


def test_ratios_are_formed_inside_a_round() -> None:
    laps = {0: (100.0, 110.0), 1: (200.0, 240.0)}
    result = {
        "timed": [
            timed(kind, 4, ms, number)
            for number, pair in laps.items()
            for kind, ms in zip(("bf16", "nf4"), pair, strict=True)
        ]
    }
    assert promises.over_dense("nf4", 4, 32)(result) == pytest.approx([1.1, 1.2])
    assert promises.over_dense("nf4", 16, 32)(result) == []


def test_peft_takes_a_step_for_each_candidate() -> None:
    result = {"timed": [timed("peft nf4", 1, 80.0, 0), timed("nf4", 16, 320.0, 0)]}
    assert promises.over_peft(16, 32)(result) == [4.0]
    text, wanted, reached, _, met = promises.PROMISES[1].cells(result)
    assert (wanted, reached, met) == (">= 3.50", "4.00", "met"), text


def test_what_was_not_measured_is_said_so() -> None:
    assert {one.cells({})[2:] for one in promises.PROMISES} == {(promises.NOT_MEASURED, "", "")}


def test_the_tables_show_every_arm(quick: dict[str, Any]) -> None:
    lines = promises.table(quick).splitlines()
    arms = {(one["arm"]["kind"], one["arm"]["packed"]) for one in quick["timed"]}
    for kind, packed in arms:
        assert any(line.startswith(f"| 8 | {packed} | {kind} |") for line in lines), (kind, packed)


def test_the_readme_has_the_tables_of_the_committed_result() -> None:
    if not COMMITTED.is_file():
        pytest.skip("no result.json beside the benchmark yet: run it")
    table = promises.table(json.loads(COMMITTED.read_text(encoding="utf-8")))
    assert table in (HERE / "README.md").read_text(encoding="utf-8")
