"""The GPU benchmark on a machine without one: every step in small, steps that go wrong,
and what its table may say."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from scripts import BENCHMARKS, load

HERE = BENCHMARKS / "gpu"
sys.path.insert(0, str(HERE))

script: Any = load("gpu")
isolate: Any = sys.modules["isolate"]
targets: Any = sys.modules["targets"]
COMMITTED = json.loads((HERE / "result.json").read_text(encoding="utf-8"))
STEPS = [step.name for step in script.STEPS]


# -- a step in a process of its own
# --------------------------------------------------------------------------------------


def ended(function: str, limit: float = 60.0, *arguments: Any) -> Any:
    return isolate.Isolation().run(isolate.Work("planted_steps", function, arguments), limit)


def test_a_step_ends_with_what_its_parts_found() -> None:
    found = ended("fine")
    assert (found.status, found.why) == ("done", [])
    assert found.parts == {"first": {"status": "done", "value": 1}}


def test_a_part_that_takes_the_process_with_it_fails_alone() -> None:
    found = ended("crashes_in_a_part")
    assert {name: part["status"] for name, part in found.parts.items()} == {
        "first": "done",
        "second": "failed",
        "third": "done",
    }
    assert "about to end" in found.parts["second"]["why"]
    assert found.parts["second"]["why"][-1] == "ended by SIGABRT"
    assert (found.status, found.why) == ("failed", ["in part: second"])


def test_a_part_that_hangs_is_ended_and_says_where_it_hung() -> None:
    found = ended("hangs_in_a_part")
    assert {name: part["status"] for name, part in found.parts.items()} == {
        "hangs": "timed out",
        "after": "done",
    }
    assert any("hangs_in_a_part" in line for line in found.parts["hangs"]["why"])


def test_a_step_that_hangs_is_ended_at_its_limit_and_keeps_what_it_found() -> None:
    started = time.monotonic()
    found = ended("hangs", 6.0)
    assert time.monotonic() - started < 60
    assert (found.status, found.parts) == ("timed out", {"first": {"status": "done"}})


def test_what_a_step_has_started_ends_with_it(tmp_path: Path) -> None:
    late = tmp_path / "late"
    assert ended("starts_another_and_hangs", 2.0, str(late)).status == "timed out"
    time.sleep(4)
    assert not late.exists()


def test_a_step_that_raises_says_why_and_names_no_folder_of_this_machine() -> None:
    found = ended("raises")
    assert found.status == "failed"
    assert "RuntimeError: this device is gone" in found.why
    assert not any(str(isolate.ROOT) in line for line in found.why)


def test_where_the_server_has_touched_the_device_new_processes_are_used() -> None:
    assert ended("needs_a_new_process").status == "done"


# -- a run of steps
# ------------------------------------------------------------------------------------------------------


def run_of(
    out: Path, end: Callable[[str], Any], *, seconds: float = 60.0, **more: Any
) -> tuple[bool, dict[str, Any]]:
    """Run all steps, each of which ends as `end` says; whether it went well, and what is on disk."""
    result: dict[str, Any] = {"seconds": 0.0, "steps": {}}
    run = script.Run(script.STEPS, time.monotonic() + seconds, result, out, small=False, **more)
    run.isolation = SimpleNamespace(run=lambda work, limit: end(work.arguments[0]))
    return run.run(), json.loads(out.read_text()) if out.exists() else {}


def done(name: str) -> Any:
    return isolate.Ending("done", [], {"part": {"status": "done"}})


def test_the_result_is_whole_before_every_step(tmp_path: Path) -> None:
    out, seen = tmp_path / "result.json", list[dict[str, str]]()

    def end(name: str) -> Any:
        seen.append(
            {step: found["status"] for step, found in json.loads(out.read_text())["steps"].items()}
        )
        return done(name)

    well, result = run_of(out, end)
    assert well
    assert [list(statuses) for statuses in seen] == [STEPS] * len(STEPS)
    for place, statuses in enumerate(seen):
        assert list(statuses.values()) == ["done"] * place + ["not run"] * (len(STEPS) - place)
    assert {found["status"] for found in result["steps"].values()} == {"done"}
    assert list(tmp_path.iterdir()) == [out]


def test_a_step_that_fails_leaves_the_next_alone(tmp_path: Path) -> None:
    well, result = run_of(
        tmp_path / "result.json",
        lambda name: isolate.Ending("failed", ["gone"]) if name == "speed" else done(name),
    )
    statuses = {name: found["status"] for name, found in result["steps"].items()}
    assert not well
    assert statuses == dict.fromkeys(STEPS, "done") | {"speed": "failed"}
    assert result["steps"]["speed"]["why"] == ["gone"]


def test_the_last_steps_are_left_out_at_the_deadline(tmp_path: Path) -> None:
    def end(name: str) -> Any:
        time.sleep(0.5 if name == "speed" else 0.0)
        return done(name)

    well, result = run_of(tmp_path / "result.json", end, seconds=script.LEAST_SECONDS + 0.4)
    statuses = [found["status"] for found in result["steps"].values()]
    assert not well
    assert statuses == ["done"] * 3 + ["not run: deadline"] * (len(STEPS) - 3)


def no_device(name: str) -> Any:
    return isolate.Ending("failed", ["RuntimeError: No CUDA GPUs are available"])


def test_without_a_device_nothing_is_measured_and_nothing_failed(tmp_path: Path) -> None:
    well, result = run_of(tmp_path / "result.json", no_device)
    assert well
    assert {found["status"] for found in result["steps"].values()} == {script.NO_DEVICE}


def test_without_a_device_a_result_of_another_machine_stays(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    run_of(out, done)
    before = out.read_text()
    run_of(out, no_device, spare=script.measured(json.loads(before)))
    assert out.read_text() == before
    run_of(out, done, spare=True)
    assert json.loads(out.read_text())["steps"]["device"]["date"]


def test_a_step_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        script.main(["--only", "speed,warp"])
    assert ending.value.code == 2
    assert "no step warp" in capsys.readouterr().err


def test_a_run_that_is_ended_leaves_no_process_and_a_whole_result(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    words = [
        sys.executable,
        str(HERE / "run.py"),
        "--small",
        "--only",
        "contract,speed",
        "--out",
        str(out),
    ]
    running = psutil.Popen(words, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 120
        while not (out.exists() and "parts" in json.loads(out.read_text())["steps"]["contract"]):
            assert running.poll() is None and time.monotonic() < until
            time.sleep(0.1)
        others = running.children(recursive=True)
        running.terminate()
        assert running.wait(60) == 143
        assert psutil.wait_procs(others, timeout=60)[1] == []
    finally:
        if running.is_running():
            running.kill()
    assert list(json.loads(out.read_text())["steps"]) == ["contract", "speed"]


# -- every step in small
# -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("gpu") / "result.json"
    ended = subprocess.run(
        [sys.executable, str(HERE / "run.py"), "--small", "--out", str(out)],
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr + out.read_text()
    assert str(out.parent) not in out.read_text()
    return json.loads(out.read_text())


def test_every_step_runs_in_small(small: dict[str, Any]) -> None:
    assert {name: found["status"] for name, found in small["steps"].items()} == dict.fromkeys(
        STEPS, "done"
    )


def test_what_needs_a_device_says_so_and_all_else_is_measured(small: dict[str, Any]) -> None:
    twins = [
        f"{what}, {dtype}"
        for what in ("kernels as AdapterDelta", "fused as plain", "graph as eager")
        for dtype in ("float32", "bfloat16")
    ]
    alone = [
        "driver",
        "waits, K=2",
        "offload",
        "gpu tests",
        "kernels on",
        "fused on",
        "fused off",
        "graphs on",
    ]
    for step, found in small["steps"].items():
        for name, part in found["parts"].items():
            reason = part["status"].startswith("not measured: ")
            assert part["status"] == "done" or (reason and name in (*twins, *alone)), (step, name, part)
    measured = {step: [name for name, _ in targets.parts_of(small, step)] for step in STEPS}
    assert len(measured["contract"]) >= 5
    assert measured["speed"][:4] == [
        "PEFT loop",
        "PEFT loop, autocast",
        "PEFT + Trainer",
        "PEFT + Trainer, bf16",
    ]
    assert measured["speed"][4:] == ["K=1", "K=2", "K=2 in two passes"]
    assert {"default", "dropout 0.05", "uneven batches: 1 and 3 rows", "default again"} <= set(
        measured["switches"]
    )
    assert (measured["out_of_memory"], measured["door"], measured["nf4"]) == (
        ["halved"],
        ["tune"],
        ["spread", "K=1", "K=2", "8B, K=4"],
    )


def test_every_row_of_the_table_reads_something_that_a_step_tells(small: dict[str, Any]) -> None:
    """With the parts of a small run under the names that a full one has, and what only
    a device could add."""
    result = json.loads(json.dumps(small).replace("K=2", "K=16"))
    parts = {step: found["parts"] for step, found in result["steps"].items()}
    whole = {"status": "done", "ratio": 1.0}
    parts["speed"]["K=32"] = parts["speed"]["K=16"]
    parts["where_time_goes"]["waits, K=16"] = {"status": "done", "waits_per_tick": 2.0}
    parts["switches"] |= dict.fromkeys(("fused off", "graphs on"), whole)
    parts["nf4"]["offload"] = whole | {"same": 1.0}
    parts["nf4"]["8B, K=4"]["peak_gb"] = 11.0
    for part in (*parts["speed"].values(), *parts["sizes"].values()):
        if "memory_error" in part:
            part["memory_error"] = 0.01
    assert [row.text for row in targets.ROWS if row.read(result) is None] == []


# -- the table
# -------------------------------------------------------------------------------------------------------


def speed(**milliseconds: float) -> dict[str, Any]:
    names = {"trainer": "PEFT + Trainer", "bf16": "PEFT + Trainer, bf16", "pack": "K=16"}
    return {
        "steps": {
            "speed": {
                "parts": {names[n]: {"status": "done", "run_ms": ms} for n, ms in milliseconds.items()}
            }
        }
    }


def cells(result: dict[str, Any], text: str) -> tuple[str, str, str, str]:
    (row,) = (row for row in targets.ROWS if row.text.startswith(text))
    return row.cells(result)


def test_packs_are_judged_by_the_faster_trainer() -> None:
    text = "K=16 over PEFT + Trainer"
    assert cells(speed(trainer=40.0, bf16=36.0, pack=48.0), text)[1:] == (
        ">= 8.00 times",
        "12.00 times",
        "met",
    )
    assert cells(speed(trainer=20.0, pack=48.0), text)[2:] == ("6.67 times", "missed")
    assert cells(speed(trainer=20.0), text)[2:] == ("not measured", "")


def test_a_part_that_failed_counts_as_not_measured() -> None:
    result = speed(trainer=40.0, pack=48.0)
    result["steps"]["speed"]["parts"]["K=16"]["status"] = "timed out"
    assert cells(result, "K=16 over PEFT + Trainer")[2] == "not measured"


def test_comparisons_that_disagree_are_missed() -> None:
    parts = {
        "a": {"status": "done"},
        "b": {"status": "failed"},
        "c": {"status": "not measured: no switch"},
    }
    assert cells({"steps": {"contract": {"parts": parts}}}, "comparisons")[2:] == ("50.0%", "missed")


def test_forecasts_are_judged_by_their_largest_error() -> None:
    parts = {f"K={n}": {"status": "done", "memory_error": error} for n, error in ((1, 0.01), (4, -0.05))}
    found = cells({"steps": {"speed": {"parts": parts}}}, "memory forecast, largest error at 1B")
    assert found[1:] == ("<= 3.0%", "5.0%", "missed")


def test_the_readme_has_the_table_of_the_committed_result() -> None:
    assert targets.table(COMMITTED) in (HERE / "README.md").read_text(encoding="utf-8")
    assert list(COMMITTED["steps"]) == STEPS
    if not script.measured(COMMITTED):
        assert all(row.cells(COMMITTED)[2] == "not measured" for row in targets.ROWS)


def test_the_engine_steps_need_nothing_of_the_door() -> None:
    """A machine that is lent may have torch and transformers and little else."""
    blocked = ("pydantic", "optuna", "plotly", "typer", "rich", "sqlalchemy", "pyarrow", "scipy")
    names = [f"steps.{name}" for name in STEPS]
    code = f"""
import importlib, sys
sys.modules.update(dict.fromkeys({blocked!r}))
sys.path[:0] = [{str(HERE)!r}]
for name in {names!r}:
    importlib.import_module(name)
from steps.forecast import forecast, plan_of
from steps.training import make_rows
plan = plan_of('small', 'bfloat16', 2, make_rows(8, 128), make_rows(8, 128), 'cpu')
print(forecast(plan, 512)['forecast_ms'] > 0)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.stdout.strip() == "True", ended.stderr
