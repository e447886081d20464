"""Trackers are fed the run's events; they are looked for before work starts, and one
that fails costs the run nothing."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from loraloom.errors import RequestError
from loraloom.pipeline.trackers import TRACKERS, numbers_of, require_trackers, tracked
from loraloom.records import Event

EVENTS = [
    Event("evaluated", data={"split": "validation", "loss": 3.0}),
    Event("trial_started", "t000", 0, data={"params": {"adapter.r": 8}}),
    Event("step", "t000", 1, data={"loss": 2.0, "learning_rate": 1e-4}),
    Event(
        "evaluated",
        "t000",
        4,
        data={"split": "validation", "loss": 1.5, "loss_se": math.nan, "progress": 0.5},
    ),
    Event("completed", "t000", 8),
    Event("run_finished", data={"status": "completed"}),
]


class Recorded:
    """Stands for a package: whatever is called on it is written down, and gives another of its kind."""

    def __init__(self, calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]], name: str = "") -> None:
        self.calls, self.name = calls, name
        self.info = SimpleNamespace(run_id=f"run-{len(calls)}")
        self.experiment_id = "7"

    def __getattr__(self, name: str) -> Any:
        def call(*values: Any, **named: Any) -> Recorded:
            self.calls.append((name, values, named))
            return Recorded(self.calls, name)

        return call


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a module of a name in the place of the real one; gives the list of its calls."""

    def put(name: str) -> list[tuple[str, tuple[Any, ...], dict[str, Any]]]:
        calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        module = ModuleType(name)
        module.__getattr__ = lambda attribute: getattr(Recorded(calls), attribute)  # type: ignore[method-assign]
        monkeypatch.setitem(sys.modules, name, module)
        return calls

    return put


def feed(name: str, folder: Path) -> list[Event]:
    """All events through one tracker; what the watch behind it was told."""
    seen: list[Event] = []
    watch = tracked([name], folder, {"task": "auto"}, seen.append)
    for event in EVENTS:
        watch(event)
    return seen


def test_without_trackers_events_go_straight_to_the_watcher(tmp_path: Path) -> None:
    def watch(event: Event) -> None: ...

    assert tracked([], tmp_path, {}, watch) is watch


@pytest.mark.parametrize("name", sorted(TRACKERS))
def test_a_missing_package_is_refused_with_its_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda wanted: None)
    with pytest.raises(RequestError, match=f"`report_to: {name}` needs the package {name}") as caught:
        require_trackers([name])
    assert f'pip install "loraloom[{name}]"' in str(caught.value)
    assert caught.value.exit_code == 2


def test_what_is_no_tracker_is_refused() -> None:
    with pytest.raises(RequestError, match="`report_to: notebook` is no tracker") as caught:
        require_trackers(["notebook"])
    assert "tensorboard, wandb, mlflow, trackio" in str(caught.value)


def test_only_finite_numbers_are_shown() -> None:
    assert numbers_of(EVENTS[3]) == {"validation/loss": 1.5}
    assert numbers_of(EVENTS[2]) == {"train/loss": 2.0, "train/learning_rate": 1e-4}
    assert numbers_of(EVENTS[1]) == {}


def test_tensorboard_gets_a_folder_a_candidate(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is an extra")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert feed("tensorboard", tmp_path) == EVENTS
    written = EventAccumulator(str(tmp_path / "tensorboard" / "t000"))
    written.Reload()
    assert [(point.step, point.value) for point in written.Scalars("validation/loss")] == [(4, 1.5)]
    assert {path.name for path in (tmp_path / "tensorboard").iterdir()} == {"base", "t000"}


def test_wandb_gets_one_run_and_a_curve_a_candidate(tmp_path: Path, package: Any) -> None:
    calls = package("wandb")
    assert feed("wandb", tmp_path / "first") == EVENTS
    assert calls[0][0] == "init"
    assert calls[0][2]["name"] == "first"
    assert ("define_metric", ("t000/*",), {"step_metric": "t000/step"}) in calls
    assert ("log", ({"t000/validation/loss": 1.5, "t000/step": 4},), {}) in calls
    assert calls[-1] == ("finish", (), {"exit_code": 0})


def test_mlflow_nests_candidates_in_the_run(tmp_path: Path, package: Any) -> None:
    calls = package("mlflow")
    assert feed("mlflow", tmp_path / "first") == EVENTS
    names = [named.get("run_name") for name, _, named in calls if name == "create_run"]
    assert names == ["first", "t000"]
    assert [values[1:] for name, values, _ in calls if name == "log_param"] == [("adapter.r", 8)]
    assert [named["status"] for name, _, named in calls if name == "set_terminated"] == [
        "FINISHED",
        "FINISHED",
    ]
    metrics = [(values[1:], named) for name, values, named in calls if name == "log_metric"]
    assert (("validation/loss", 1.5), {"step": 4}) in metrics


def test_trackio_gets_one_run(tmp_path: Path, package: Any) -> None:
    calls = package("trackio")
    assert feed("trackio", tmp_path / "first") == EVENTS
    assert [name for name, _, _ in calls] == ["init", "log", "log", "log", "finish"]


def test_one_that_cannot_begin_is_refused(
    tmp_path: Path, package: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    package("wandb")
    monkeypatch.setattr("loraloom.pipeline.trackers.WandB.__init__", lambda self, folder, config: 1 / 0)
    with pytest.raises(RequestError, match="`report_to: wandb` cannot begin") as caught:
        tracked(["wandb"], tmp_path, {}, lambda event: None)
    assert "ZeroDivisionError: division by zero" in str(caught.value)


def test_one_that_fails_is_let_go_and_said(
    tmp_path: Path, package: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    package("wandb")
    monkeypatch.setattr("loraloom.pipeline.trackers.WandB.send", lambda self, event: 1 / 0)
    seen = feed("wandb", tmp_path)
    notes = [event for event in seen if event.kind == "note"]
    assert [note.data["text"] for note in notes] == [
        "wandb gets no more events: ZeroDivisionError: division by zero"
    ]
    assert [event for event in seen if event.kind != "note"] == EVENTS
