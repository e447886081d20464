"""What a command prints for people at its end."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from loraloom.cli.screen import plain_console, rows_left, say, table_width, verbatim
from loraloom.report.fit import Shown, fitted
from loraloom.report.words import MISSING, duration, metric_words, number, with_error

if TYPE_CHECKING:
    from loraloom.pipeline.prepare import Prepared
    from loraloom.pipeline.run_log import Outcome
    from loraloom.store.result import RunResult
    from loraloom.store.summary import RunSummary

RUNS_BESIDES = 6
"""Lines beside the rows of `runs`: heading, captions, the prompt below."""
END_BESIDES = 20
"""Lines beside the candidates at the end of a run: heading, verdict, where things are
and how to load them."""


def show_end(done: Outcome | Prepared) -> dict[str, Any]:
    """The end of `train` or `tune`, or their plan after --dry-run. Returns the document of --json."""
    from loraloom.pipeline.prepare import Prepared

    if isinstance(done, Prepared):
        from loraloom.cli.planned import show_plan

        return show_plan(done)
    show_outcome(done)
    return done.to_json()


def show_outcome(outcome: Outcome) -> None:
    """The table of candidates, where report and adapter are, and how to load the adapter."""
    from loraloom.report.commands import load_snippet
    from loraloom.report.table import trials_table

    console = plain_console()
    result = outcome.result
    folder = outcome.folder
    console.print()
    rows = rows_left(console, END_BESIDES)
    console.print(
        trials_table(result, table_width(console), rows, more=folder.report_path.name), crop=False
    )
    if result.verdict:
        say(console, result.verdict)
    for one in result.augmentation:
        say(console, f"augmentation {one['sentence']}", "  ")
    _findings(console, outcome)
    verbatim(console)
    verbatim(console, f"report   {folder.report_path}")
    if result.best is not None and folder.best.is_dir():
        verbatim(console, f"adapter  {folder.best}")
        verbatim(console, f"try it   {_try_it(result, folder.best)}")
        verbatim(
            console, f"load it\n\n{indent(load_snippet(folder, result, str(folder.best)) or '', '  ')}"
        )


def _findings(console: Console, outcome: Outcome) -> None:
    """What is wrong with the data or with the adapter that is kept, each with its next
    step; then how to take the first."""
    from loraloom.diagnose.order import ranked

    best = outcome.result.trial(outcome.result.best)
    found = ranked([*outcome.result.findings, *(best.findings if best else ())])
    for finding in found:
        say(console, f"{finding.level}: {finding.name}: {finding.symptom} ({finding.evidence})", "  ")
        say(console, f"  next: {finding.next}", "  ")
    remedy = next((finding for finding in found if finding.patch and finding.level != "note"), None)
    if remedy is not None:
        verbatim(
            console,
            f"do that  loraloom train --apply {shlex.quote(f'{outcome.folder.path}:{remedy.name}')}",
        )


def show_metrics(document: Mapping[str, Any]) -> None:
    """What was scored on what, then each metric with its standard error."""
    console = plain_console()
    metrics: Mapping[str, float] = document["metrics"]
    for name, value in document.items():
        if name not in ("metrics", "notes"):
            verbatim(console, f"{name}: {number(value)}")
    for note in document.get("notes", ()):
        say(console, f"warning: {note}")
    for name, value in metrics.items():
        if not name.endswith("_se"):
            verbatim(
                console, f"{metric_words(name)}: {with_error(value, metrics.get(f'{name}_se', 0.0))}"
            )


CLASSES_SHOWN = 5
"""Classes whose probability stands under a label."""


def show_answers(answers: Sequence[Mapping[str, Any]]) -> None:
    """Answers one after another, under the prompt and the name of who gave them."""
    console = plain_console()
    for last, answer in zip([None, *answers], answers, strict=False):
        if last is None or last["prompt"] != answer["prompt"]:
            asked = answer["prompt"]
            shown = asked if isinstance(asked, str) else asked[-1].get("content")
            console.print(Text(f"\n> {shown}", style="bold"), soft_wrap=True)
        console.print(Text(f"[{answer['source']}]", style="dim"))
        console.print(Text(str(answer["text"])), soft_wrap=True)
        if answer.get("probabilities"):
            shown = likeliest(answer["probabilities"])
            console.print(Text(f"  {shown}", style="dim"), soft_wrap=True)


def likeliest(probabilities: Mapping[str, float]) -> str:
    """The classes that are most probable, each with how probable it is."""
    found = sorted(probabilities.items(), key=lambda one: -one[1])
    shown = ", ".join(f"{label} {share:.3f}" for label, share in found[:CLASSES_SHOWN])
    return f"{shown}{', ...' if len(found) > CLASSES_SHOWN else ''}"


def show_runs(runs: Sequence[RunSummary], output_dir: str, *, everything: bool = False) -> None:
    """One row a run, the newest first.

    Args:
        everything: all runs and all columns, however large the table.
    """
    from loraloom.store.names import this_host

    console = plain_console()
    if not runs:
        verbatim(console, f"no runs in {output_dir} yet; loraloom tune makes one")
        return
    rows = rows_left(console, RUNS_BESIDES, everything=everything)
    captions = (
        [f"{len(runs) - rows} older runs (--all shows them)"]
        if rows is not None and rows < len(runs)
        else []
    )
    captions += _out_of_reach(runs)
    width = table_width(console, everything=everything)
    several = {run.host for run in runs} != {this_host()}
    columns = _runs(runs[:rows], whole=width is None, several=several)
    console.print(fitted(columns, width, captions=captions), crop=False)


def _out_of_reach(runs: Sequence[RunSummary]) -> list[str]:
    """Which machines have runs whose folders this one does not see."""
    from loraloom.store.summary import reachable

    near = reachable(runs)
    hosts = Counter(run.host for run in runs if run.key not in near)
    each = ", ".join(f"{host} ({count})" for host, count in sorted(hosts.items()))
    return [f"folders that are out of reach from here, by machine: {each}"] if each else []


def _runs(runs: Sequence[RunSummary], *, whole: bool, several: bool) -> Iterator[Shown]:
    """What is shown of each run, with the rank of each column.

    Args:
        whole: a base model's folder with all that leads to it.
        several: runs may be of several machines.
    """

    def shown(
        heading: str, cell: Callable[[RunSummary], str], rank: int, *, number: bool = True
    ) -> Shown:
        return Shown(heading, [Text(cell(run)) for run in runs], rank, number)

    yield shown("name", lambda run: run.name, 0, number=False)
    if several:
        yield shown("host", lambda run: run.host, 2, number=False)
    yield shown("verb", lambda run: run.verb, 6, number=False)
    yield shown("status", lambda run: run.status, 0, number=False)
    yield shown("trials", lambda run: str(run.trials), 5)
    yield shown("time", lambda run: duration(run.seconds), 4)
    yield shown("started", lambda run: _local(run.started_at), 3)
    yield shown("model", lambda run: run.model if whole else _last_name(run.model), 7, number=False)
    yield shown(
        "measure",
        lambda run: MISSING if run.best_value is None else _measure(run.metric),
        1,
        number=False,
    )
    yield shown("best", lambda run: _scored(run.best_value, run.best_se), 0)
    yield shown("bare base", lambda run: _scored(run.baseline_value), 2)


def _local(started_at: str) -> str:
    """In the time of this machine, whichever machine wrote it."""
    try:
        return f"{datetime.fromisoformat(started_at).astimezone():%Y-%m-%d %H:%M}"
    except (ValueError, OverflowError):
        return started_at[:16].replace("T", " ")


def _last_name(model: str) -> str:
    """Of a folder its own name; a name on the hub as it is."""
    return Path(model).name if Path(model).is_absolute() else model


def _measure(metric: str) -> str:
    """What was measured; without the split where it is the usual one."""
    return metric_words(metric.removeprefix("validation_"))


def _scored(value: float | None, error: float | None = None) -> str:
    return MISSING if value is None else with_error(value, error or math.nan)


def show_facts(facts: Mapping[str, Any], margin: str = "") -> None:
    """Nested facts, one a line."""
    console = plain_console()
    for name, value in facts.items():
        if isinstance(value, Mapping):
            verbatim(console, f"{margin}{name}")
            show_facts(value, margin + "  ")  # pyright: ignore[reportUnknownArgumentType]
        else:
            verbatim(console, f"{margin}{name}: {number(value)}")


def _try_it(result: RunResult, adapter: Path) -> str:
    if result.task == "reward":
        return f"loraloom predict --adapter {shlex.quote(str(adapter))} --data FILE"
    beside = "" if result.task == "seq_cls" else " --base"  # a base has no trained head to compare with
    return f'loraloom generate --adapter {shlex.quote(str(adapter))}{beside} "..."'
