"""Forecasts corrected by earlier runs: which of them count, and what of a run with
pruned candidates can be compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loraloom.config.asked import Config
from loraloom.facts.data import assumed_data
from loraloom.facts.device import DeviceFacts
from loraloom.facts.model import model_facts
from loraloom.pipeline.history import Earlier, corrected, earlier_runs, finished_runs, memory_of, time_of
from loraloom.plan.planner import Facts, Plan, make_plan
from loraloom.records import Event, Trial
from loraloom.store.folder import RunFolder
from loraloom.store.result import RunResult

DEVICE = DeviceFacts("cpu", "a processor", 16 * 2**30, 12 * 2**30, 4, bf16_native=False)
FORECAST: Mapping[str, Any] = {
    "memory": {"total_bytes": 1000, "one_candidate_bytes": 800, "candidates": 4},
    "time": {
        "training_seconds": 60.0,
        "layers_seconds": 20.0,
        "evaluation_seconds": 20.0,
        "startup_seconds": 10.0,
        "total_seconds": 110.0,
        "candidates": 4,
    },
}
"""4 candidates of 10 steps with 100 tokens each: 80 seconds for 4,000 tokens."""


def trial(name: str, steps: int = 10, seconds: float = 20.0, peak: int = 900) -> Trial:
    """A candidate that was to take 10 steps of 100 tokens."""
    status = "completed" if steps == 10 else "pruned"
    return Trial(
        name,
        status,
        {},
        seconds=seconds,
        tokens=100 * steps,
        steps=steps,
        planned_steps=10,
        peak_bytes=peak,
    )


def result(*trials: Trial, **more: Any) -> RunResult:
    known: dict[str, Any] = {
        "name": "one",
        "verb": "tune",
        "status": "completed",
        "model": "base",
        "task": "causal_lm",
        "started_at": "",
    }
    environment = {"device": {"name": DEVICE.name}}
    return RunResult(
        **(known | {"environment": environment, "trials": list(trials), "default": "t1"} | more)
    )


def run(*trials: Trial, **more: Any) -> Earlier:
    return Earlier(result(*trials, **more), FORECAST)


def test_a_run_that_began_beside_others_says_nothing_of_an_idle_machine() -> None:
    finished = result(trial("t1"), trial("t2"))
    told = {
        share: {**FORECAST, "time": {**FORECAST["time"], "now": {"cores_share": share}}}
        for share in (1.0, 0.3)
    }
    assert time_of(Earlier(finished, told[1.0])) == time_of(Earlier(finished, FORECAST)) is not None
    assert time_of(Earlier(finished, told[0.3])) is None
    assert memory_of(Earlier(finished, told[0.3])) == memory_of(Earlier(finished, FORECAST))


def test_the_peak_of_a_tune_is_held_against_the_whole_pack_and_that_of_a_train_against_one() -> None:
    tuned = memory_of(run(trial("t1", peak=900), trial("t2", peak=950)))
    trained = memory_of(run(trial("t1", peak=900), verb="train"))
    assert tuned and (tuned.forecast, tuned.measured) == (1000, 950)
    assert trained and (trained.forecast, trained.measured) == (800, 900)


def test_pruned_candidates_change_nothing_about_the_seconds_of_a_token() -> None:
    whole = time_of(run(*(trial(f"t{number}") for number in range(1, 5))))
    pruned = time_of(
        run(trial("t1"), trial("t2", steps=5, seconds=10.0), trial("t3", steps=1, seconds=2.0))
    )
    assert whole and pruned
    assert whole == pruned
    assert whole.forecast == 110 and whole.measured == pytest.approx(110.0)


def test_steps_that_took_twice_as_long_double_all_but_the_start() -> None:
    slow = time_of(run(trial("t1", seconds=40.0), trial("t2", steps=5, seconds=20.0)))
    assert slow and slow.measured == pytest.approx(10 + 2 * 100)


@pytest.mark.parametrize(
    "earlier",
    [
        run(),
        run(trial("t1", steps=0, seconds=0.0, peak=0)),
        run(trial("t2"), trial("t3"), default=None),
        replace(run(trial("t1")), forecast={}),
        replace(run(trial("t1")), forecast={"memory": "much", "time": {"total_seconds": None}}),
    ],
    ids=["no trials", "nothing trained", "no default", "no forecast", "broken forecast"],
)
def test_what_was_not_measured_says_nothing(earlier: Earlier) -> None:
    assert time_of(earlier) is None
    assert memory_of(earlier) is None or earlier.result.default is None


def keep(root: Path, made: RunResult, forecast: Mapping[str, Any] | None = FORECAST) -> None:
    folder = RunFolder.create(root, made.name)
    folder.append(Event("run_started"))
    if forecast is not None:
        folder.append(Event("forecast", data=forecast))
    folder.write_result(made)


def test_runs_of_the_same_model_task_and_device_are_found_and_broken_folders_passed_over(
    tmp_path: Path,
) -> None:
    keep(tmp_path, result(trial("t1"), name="same"))
    keep(tmp_path, result(trial("t1"), name="other-model", model="another"))
    keep(tmp_path, result(trial("t1"), name="other-task", task="seq_cls"))
    keep(
        tmp_path, result(trial("t1"), name="other-machine", environment={"device": {"name": "another"}})
    )
    keep(tmp_path, result(trial("t1"), name="unknown-machine", environment={}))
    keep(tmp_path, result(trial("t1"), name="not-over", status="running"))
    keep(tmp_path, result(trial("t1"), name="before-forecasts"), forecast=None)
    keep(tmp_path, result(trial("t1"), name="torn"))
    (tmp_path / "torn" / "run.json").write_text("{")
    (tmp_path / "a-file").write_text("")
    (tmp_path / "a-folder").mkdir()
    found = list(earlier_runs(finished_runs(tmp_path), "base", "causal_lm", DEVICE))
    assert [one.result.name for one in found] == ["same"]
    assert found[0].forecast["time"]["total_seconds"] == 110.0


def test_an_output_folder_that_is_not_there_holds_no_runs(tmp_path: Path) -> None:
    assert not list(finished_runs(tmp_path / "none"))


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    import transformers as tf

    tf.LlamaConfig(
        vocab_size=512, hidden_size=64, intermediate_size=172, num_hidden_layers=2, num_attention_heads=4
    ).save_pretrained(tmp_path)
    facts = model_facts(str(tmp_path))
    return make_plan(Config(), Facts(facts, assumed_data(facts.task), DEVICE))


def test_a_plan_takes_the_factor_over_with_a_note_and_keeps_its_settings(plan: Plan) -> None:
    memory, seconds = plan.forecast["memory"].value, plan.forecast["time"].value
    told = {
        "memory": {"total_bytes": memory},
        "time": {**FORECAST["time"], "total_seconds": seconds, "startup_seconds": 0.0},
    }
    earlier = Earlier(result(trial("t1", seconds=30.0, peak=round(1.2 * memory))), told)
    better = corrected(plan, [earlier])
    assert better.forecast["memory"].value == pytest.approx(1.2 * memory)
    assert better.forecast["time"].value == pytest.approx(1.5 * seconds)
    assert better.forecast["memory_one"] == plan.forecast["memory_one"]
    assert better.settings == plan.settings and better.warnings == plan.warnings
    assert better.notes == (
        "memory is corrected by 1 earlier run (one): 120% of the forecast",
        "time is corrected by 1 earlier run (one): 150% of the forecast",
    )


def test_a_plan_without_earlier_runs_stays_as_it_was(plan: Plan) -> None:
    assert corrected(plan, []) == plan
