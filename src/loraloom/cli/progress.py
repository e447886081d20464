"""A run as it happens, on stderr: one live line a candidate on a terminal, plain lines anywhere else."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from loraloom.records import Event
from loraloom.report.words import metric_words, number, with_error

ENDINGS = ("completed", "pruned", "diverged", "failed")


@contextmanager
def progress(
    *, quiet: bool = False, console: Console | None = None
) -> Generator[Callable[[Event], None]]:
    """A function that shows each event of a run, for as long as the run lasts.

    Args:
        quiet: show nothing.
        console: where to show it; stderr when None.
    """
    console = console or Console(stderr=True, highlight=False)
    if quiet:
        yield _ignore
    elif console.is_terminal:
        console.print("reading model and data", style="dim")
        lines = LiveLines(console)
        with lines.bars:
            yield lines
    else:
        yield PlainLines(console)


class PlainLines:
    """One line for each thing worth a line: a start, an evaluation, an end, a note. Steps are not."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.planned_steps: dict[str, int] = {}

    def __call__(self, event: Event) -> None:
        if event.trial and event.kind == "trial_started":
            self.planned_steps[event.trial] = event.data.get("planned_steps", 0)
        sentence = describe(event, self.planned_steps.get(event.trial or "", 0))
        if sentence:
            self.console.print(f"{event.at:8.1f} s  {sentence}", markup=False, soft_wrap=True)


class LiveLines:
    """A bar for each living candidate with step, losses, speed and time left; ends and
    notes scroll away above them."""

    def __init__(self, console: Console) -> None:
        self.bars = Progress(
            TextColumn("{task.description}", style="bold"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[loss]}"),
            TextColumn("{task.fields[score]}", style="cyan"),
            TextColumn("{task.fields[speed]}", style="dim"),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
        )
        self.tasks: dict[str, TaskID] = {}
        self.planned_steps: dict[str, int] = {}
        self.deciding = "loss"

    def __call__(self, event: Event) -> None:
        trial = event.trial
        data = event.data
        if event.kind == "run_started":
            self.deciding = str(data.get("metric", "loss")).removeprefix("validation_")
        elif trial and event.kind == "trial_started":
            self.planned_steps[trial] = data.get("planned_steps", 0)
            self._show(trial)
        elif trial and event.kind == "waiting" and trial in self.tasks:
            self.bars.remove_task(self.tasks.pop(trial))
        elif trial and event.kind == "running":
            self._show(trial, event.step or 0)
        elif event.kind == "step" and trial in self.tasks:
            loss, speed = data.get("loss"), data.get("tokens_per_second")
            self.bars.update(
                self.tasks[trial],
                completed=event.step or 0,
                loss="" if loss is None else f"train {loss:.3f}",
                speed="" if speed is None else f"{speed:,.0f} tok/s",
            )
        elif event.kind == "evaluated" and trial in self.tasks:
            self.bars.update(self.tasks[trial], score=escape(_metric(self.deciding, data)))
        elif sentence := describe(event, self.planned_steps.get(trial or "", 0)):
            if event.kind in ENDINGS and trial in self.tasks:
                self.bars.remove_task(self.tasks.pop(trial))
            self.bars.console.print(sentence, markup=False)

    def _show(self, trial: str, step: int = 0) -> None:
        total = self.planned_steps.get(trial, 0)
        self.tasks[trial] = self.bars.add_task(
            escape(trial), total=total, completed=step, loss="", score="", speed=""
        )


def describe(event: Event, planned_steps: int = 0) -> str | None:
    """One line about an event for a person, or None for events that are not worth one."""
    trial = event.trial or ""
    data = event.data
    match event.kind:
        case "trial_started":
            params = ", ".join(
                f"{key.rpartition('.')[2]} {number(value)}"
                for key, value in data.get("params", {}).items()
            )
            return f"{trial}  starts: {params or 'the plan, unchanged'}"
        case "evaluated" | "test":
            split = str(data.get("split", event.kind))
            steps = (
                f"  step {event.step}/{planned_steps}"
                if planned_steps and event.step is not None
                else ""
            )
            return f"{trial or 'bare base'}{steps}  {split} {_metrics(data)}"
        case "running":
            return f"{trial}  goes on from step {event.step}/{planned_steps}"
        case "completed" | "pruned" | "diverged" | "failed":
            steps = (
                f" at step {event.step}/{planned_steps}"
                if planned_steps and event.step is not None
                else ""
            )
            reason = f": {data['reason']}" if data.get("reason") else ""
            return f"{trial}  {event.kind}{steps}{reason}"
        case "winner":
            said = data.get("sentence") or data.get("reason") or data.get("text")
            ended = "is kept" if data.get("significant") is False else "wins"
            return f"{trial}  {ended}{f': {said}' if said else ''}"
        case "command" if data.get("state") == "refused":
            asked = " ".join(filter(None, (data.get("verb"), data.get("trial"))))
            return f"asked by hand: {asked}; refused: {data.get('reason')}"
        case "command" if data.get("made"):
            return f"asked by hand: {data['made']}, a clone of {data.get('trial')}"
        case "note":
            return str(data["text"]) if data.get("text") else None
        case _:
            return None


def _metrics(data: Mapping[str, Any]) -> str:
    """ "loss 2.11 ± 0.02  accuracy 0.71 ± 0.01": what was measured, without what is only
    another scale of the loss."""
    shown = ("loss", "accuracy", "token_accuracy", "reward_accuracy")
    return "  ".join(_metric(name, data) for name in shown if name in data)


def _metric(name: str, data: Mapping[str, Any]) -> str:
    value, error = data.get(name), data.get(f"{name}_se")
    return (
        f"{metric_words(name)}"
        f" {with_error(math.nan if value is None else value, math.nan if error is None else error)}"
    )


def _ignore(event: Event) -> None:
    """`--quiet`."""
