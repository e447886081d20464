"""A result made from events alone."""

from __future__ import annotations

from loraloom.records import Event
from loraloom.store.replay import replay


def test_the_story_of_a_whole_run() -> None:
    events = [
        Event(
            "run_started",
            data={
                "verb": "tune",
                "model": "tiny",
                "task": "seq_cls",
                "metric": "validation_accuracy",
                "direction": "maximize",
            },
        ),
        Event("evaluated", data={"split": "validation", "accuracy": 0.25}),
        Event("trial_started", "a", 0, 1.0, {"params": {"adapter.r": 8}, "planned_steps": 100}),
        Event("trial_started", "b", 0, 1.0, {"params": {"adapter.r": 16}, "planned_steps": 100}),
        Event(
            "evaluated",
            "a",
            50,
            5.0,
            {
                "split": "validation",
                "progress": 0.5,
                "epoch": 1.0,
                "accuracy": 0.5,
                "accuracy_se": 0.1,
                "metric": "accuracy",
            },
        ),
        Event("pruned", "b", 50, 6.0, {"reason": "far behind"}),
        Event(
            "evaluated",
            "a",
            100,
            9.0,
            {"split": "validation", "progress": 1.0, "epoch": 2.0, "accuracy": 0.75, "accuracy_se": 0.1},
        ),
        Event("completed", "a", 100, 9.5),
        Event("best", "a", 100, 9.5),
        Event("run_finished", at=10.0, data={"status": "completed"}),
    ]
    result = replay("first", events)
    assert (result.status, result.best, result.metric, result.seconds) == (
        "completed",
        "a",
        "validation_accuracy",
        10.0,
    )
    assert result.baseline == {"validation_accuracy": 0.25}
    first, second = result.trials
    assert (first.status, first.steps, first.planned_steps, first.seconds) == (
        "completed",
        100,
        100,
        8.5,
    )
    assert first.metrics == {"validation_accuracy": 0.75, "validation_accuracy_se": 0.1}
    assert (second.status, second.reason, second.params) == ("pruned", "far behind", {"adapter.r": 16})


def test_a_trial_without_an_end_is_still_running() -> None:
    result = replay(
        "first", [Event("trial_started", "a", at=1.0), Event("step", "a", 7, 2.0, {"loss": 1.0})]
    )
    assert result.status == "interrupted"
    assert (result.trials[0].status, result.trials[0].steps) == ("running", 7)


def test_no_events_make_an_empty_run() -> None:
    assert replay("first", []).trials == []
