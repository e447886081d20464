"""What a person sees of a run while it goes on."""

from __future__ import annotations

import io

from rich.console import Console

from loraloom.cli.progress import LiveLines, describe, progress
from loraloom.records import Event
from loraloom.report.words import with_error

RUN = (
    Event("run_started", at=0.0, data={"verb": "tune", "metric": "validation_accuracy"}),
    Event("evaluated", at=1.0, data={"split": "validation", "loss": 2.7, "loss_se": 0.02}),
    Event(
        "trial_started",
        "t1",
        at=1.5,
        data={"params": {"training.learning_rate": 2e-4, "adapter.r": 8}, "planned_steps": 40},
    ),
    Event("trial_started", "t2", at=1.5, data={"params": {}, "planned_steps": 80}),
    Event("step", "t1", 10, at=2.0, data={"loss": 2.5, "tokens_per_second": 1234.5}),
    Event(
        "evaluated",
        "t1",
        10,
        at=2.5,
        data={
            "split": "validation",
            "progress": 0.25,
            "loss": 2.11,
            "loss_se": 0.03,
            "accuracy": 0.5,
            "accuracy_se": 0.01,
            "perplexity": 8.2,
        },
    ),
    Event("best", "t1", 10, at=2.5),
    Event("pruned", "t1", 10, at=2.6, data={"reason": "0.4 behind [t2]"}),
    Event("completed", "t2", 80, at=9.0, data={"reason": None}),
    Event("note", at=9.5, data={"text": "t2 is ahead"}),
    Event("winner", "t2", at=9.6),
    Event("run_finished", at=9.7),
)


def shown(*, terminal: bool, quiet: bool = False) -> str:
    out = io.StringIO()
    console = Console(
        file=out, force_terminal=terminal, width=110, color_system=None, legacy_windows=False
    )
    with progress(quiet=quiet, console=console) as watch:
        for event in RUN:
            watch(event)
    return out.getvalue()


def test_without_a_terminal_there_are_plain_lines() -> None:
    assert shown(terminal=False).splitlines() == [
        f"     1.0 s  bare base  validation loss {with_error(2.7, 0.02)}",
        "     1.5 s  t1  starts: learning_rate 2e-4, r 8",
        "     1.5 s  t2  starts: the plan, unchanged",
        (
            f"     2.5 s  t1  step 10/40  validation loss {with_error(2.11, 0.03)}  accuracy"
            f" {with_error(0.5, 0.01)}"
        ),
        "     2.6 s  t1  pruned at step 10/40: 0.4 behind [t2]",
        "     9.0 s  t2  completed at step 80/80",
        "     9.5 s  t2 is ahead",
        "     9.6 s  t2  wins",
    ]


def test_on_a_terminal_ends_and_notes_stay_above_the_bars() -> None:
    text = shown(terminal=True)
    assert "t1  pruned at step 10/40: 0.4 behind [t2]" in text
    assert "t2 is ahead" in text
    assert "starts:" not in text


def test_a_living_candidate_has_a_line_and_an_ended_one_has_none() -> None:
    watch = LiveLines(Console(file=io.StringIO(), force_terminal=True, width=110))
    for event in RUN[:6]:
        watch(event)
    first, second = watch.bars.tasks
    assert (first.description, first.completed, first.total) == ("t1", 10, 40)
    assert first.fields == {
        "loss": "train 2.500",
        "score": f"accuracy {with_error(0.5, 0.01)}",
        "speed": "1,234 tok/s",
    }
    assert (second.completed, second.total) == (0, 80)
    for event in RUN[6:]:
        watch(event)
    assert watch.bars.tasks == []


def test_quiet_shows_nothing() -> None:
    assert shown(terminal=True, quiet=True) == shown(terminal=False, quiet=True) == ""


def test_unknown_events_are_passed_over() -> None:
    assert describe(Event("something_new", "t1", 3, data={"loss": 1.0})) is None
