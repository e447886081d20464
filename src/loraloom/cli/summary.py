"""What a command says at its end, for people, on stdout."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.text import Text

from loraloom.cli.explained import range_words, space_words
from loraloom.cli.screen import WIDEST, plain_console, rows_left, say, table_width, verbatim
from loraloom.config.keys import keys
from loraloom.report.fit import Shown, fitted
from loraloom.report.forecast import NO_PARTS
from loraloom.report.words import MISSING, duration, gib, metric_words, number, with_error

if TYPE_CHECKING:
    from loraloom.pipeline.prepare import Prepared
    from loraloom.pipeline.session import Outcome
    from loraloom.store.database import RunSummary
    from loraloom.store.result import RunResult

RUNS_BESIDES = 6
"""Lines beside the rows of `runs`: heading, captions, the prompt below."""
END_BESIDES = 20
"""Lines beside the candidates at the end of a run: heading, verdict, where things are and how to load them."""
PREVIEWED = 2
"""Rows of training data that a plan shows with their masks."""

FORECASTS = {
    "memory": ("memory", "bytes"),
    "time": ("time", "seconds"),
    "generation": ("memory to write answers with an adapter", "bytes"),
    "export": ("memory to merge an adapter into the base", "bytes"),
}
"""How a plan calls its forecasts, and the unit of each."""

SHOWN_HEAD, SHOWN_TAIL = 240, 120
"""Characters of a longer piece of training data that a plan shows, from its start and from its end."""


def show_end(done: Outcome | Prepared) -> dict[str, Any]:
    """The end of `train` or `tune`, or their plan after --dry-run. Returns the document of --json."""
    from loraloom.pipeline.prepare import Prepared

    if isinstance(done, Prepared):
        return show_plan(done)
    show_outcome(done)
    return done.to_json()


def show_outcome(outcome: Outcome) -> None:
    """The table of candidates, where report and adapter are, and how to load the adapter."""
    from loraloom.report.commands import load_snippet
    from loraloom.report.table import trials_table

    console = plain_console()
    result, folder = outcome.result, outcome.folder
    console.print()
    rows = rows_left(console, END_BESIDES)
    console.print(trials_table(result, table_width(console), rows, more=folder.report_path.name), crop=False)
    if result.verdict:
        verbatim(console, result.verdict)
    _findings(console, outcome)
    verbatim(console)
    verbatim(console, f"report   {folder.report_path}")
    if result.best is not None and folder.best.is_dir():
        verbatim(console, f"adapter  {folder.best}")
        verbatim(console, f"try it   {_try_it(result, folder.best)}")
        verbatim(console, f"load it\n\n{indent(load_snippet(folder, result, str(folder.best)) or '', '  ')}")


def _findings(console: Console, outcome: Outcome) -> None:
    """What is wrong with the data or with the adapter that is kept, each with its next step; then how to take the first."""
    from loraloom.diagnose.rank import ranked

    best = outcome.result.trial(outcome.result.best)
    found = ranked([*outcome.result.findings, *(best.findings if best else ())])
    for finding in found:
        verbatim(console, f"{finding.level}: {finding.name}: {finding.symptom} ({finding.evidence})\n  next: {finding.next}")
    remedy = next((finding for finding in found if finding.patch and finding.level != "note"), None)
    if remedy is not None:
        verbatim(console, f"do that  loraloom train --apply {shlex.quote(f'{outcome.folder.path}:{remedy.name}')}")


def show_plan(prepared: Prepared) -> dict[str, Any]:
    """What was recognised in the data and what of it is learnt, each setting with reason, source and range, forecasts,
    what a search may change, warnings.

    Returns the document of `plan --json`.
    """
    from loraloom.data.encode import preview
    from loraloom.plan.document import plan_json

    console = plain_console()
    document = plan_json(prepared.plan)
    verbatim(console, prepared.recognised.note)
    for row in preview(prepared.data, prepared.tokenizer, n=PREVIEWED):
        console.print(supervised(row), soft_wrap=True)
    verbatim(console)
    for block in _settings(document["settings"]):
        console.print(block, width=min(console.width, WIDEST))
    verbatim(console)
    for name, (words, unit) in FORECASTS.items():
        if name in document["forecast"]:
            verbatim(console, f"{words}: {_estimate(document['forecast'][name], unit)}")
    if document["search_space"]:
        verbatim(console, f"\n{prepared.plan.trials} candidates of a tune would differ in")
        for line in space_words(document["search_space"]):
            verbatim(console, f"  {line}")
        verbatim(console)
    for rung in document["ladder"]:
        verbatim(console, f"  to need less: {_rung(rung)}")
    for warning in document["warnings"]:
        verbatim(console, f"warning: {warning}")
    for note in document.get("notes", ()):
        verbatim(console, f"note: {note}")
    return document


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
            verbatim(console, f"{metric_words(name)}: {with_error(value, metrics.get(f'{name}_se', 0.0))}")


def show_answers(answers: Sequence[Mapping[str, Any]]) -> None:
    """Answers one after another, under the prompt and the name of who gave them."""
    console = plain_console()
    for last, answer in zip([None, *answers], answers, strict=False):
        if last is None or last["prompt"] != answer["prompt"]:
            console.print(Text(f"\n> {answer['prompt']}", style="bold"), soft_wrap=True)
        console.print(Text(f"[{answer['source']}]", style="dim"))
        console.print(Text(str(answer["text"])), soft_wrap=True)


def show_runs(runs: Sequence[RunSummary], output_dir: str, *, everything: bool = False) -> None:
    """One row a run, the newest first.

    Args:
        everything: all runs and all columns, however large the table.
    """
    console = plain_console()
    if not runs:
        verbatim(console, f"no runs in {output_dir} yet; loraloom tune makes one")
        return
    rows = rows_left(console, RUNS_BESIDES, everything=everything)
    captions = [f"{len(runs) - rows} older runs (--all shows them)"] if rows is not None and rows < len(runs) else []
    width = table_width(console, everything=everything)
    console.print(fitted(_runs(runs[:rows], whole=width is None), width, captions=captions), crop=False)


def _runs(runs: Sequence[RunSummary], *, whole: bool) -> Iterator[Shown]:
    """What is shown of each run, with the rank of each column.

    Args:
        whole: a base model's folder with all that leads to it.
    """

    def shown(heading: str, cell: Callable[[RunSummary], str], rank: int, *, number: bool = True) -> Shown:
        return Shown(heading, [Text(cell(run)) for run in runs], rank, number)

    yield shown("name", lambda run: run.name, 0, number=False)
    yield shown("verb", lambda run: run.verb, 6, number=False)
    yield shown("status", lambda run: run.status, 0, number=False)
    yield shown("trials", lambda run: str(run.trials), 5)
    yield shown("time", lambda run: duration(run.seconds), 4)
    yield shown("started", lambda run: run.started_at[:16].replace("T", " "), 3)
    yield shown("model", lambda run: run.model if whole else _last_name(run.model), 7, number=False)
    yield shown("measure", lambda run: MISSING if run.best_value is None else _measure(run.metric), 1, number=False)
    yield shown("best", lambda run: _scored(run.best_value, run.best_se), 0)
    yield shown("bare base", lambda run: _scored(run.baseline_value), 2)


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


def _settings(settings: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Settings in the order of the config, under the name of their section; reason and source stand below the value."""
    ordered = sorted(settings, key=[*keys(), *settings].index)
    for section, group in groupby(ordered, key=lambda key: key.rpartition(".")[0]):
        names = {key: key.rpartition(".")[2] for key in group}
        if section:
            yield Text(section, style="bold")
        longest, left = max(map(len, names.values())), 2 if section else 0
        for key, name in names.items():
            advice = settings[key]
            offered = range_words(advice["range"])
            worth = f"  ({offered})" if offered else ""
            head = Text.assemble(name.ljust(longest), "  ", (number(advice["value"]), "bold"), (worth, "dim"))
            yield Padding(head, (0, 0, 0, left), expand=False)
            yield Padding(Text(f"{advice['reason']}  [{advice['source']}]", style="dim"), (0, 0, 0, left + 4), expand=False)


def _try_it(result: RunResult, adapter: Path) -> str:
    if result.task == "seq_cls":
        return f"loraloom evaluate {shlex.quote(str(adapter.parent / 'config.yaml'))} --adapter {shlex.quote(str(adapter))}"
    return f'loraloom generate --adapter {shlex.quote(str(adapter))} --base "..."'


def _estimate(estimate: Mapping[str, float], unit: str) -> str:
    """A forecast as `plan --json` has it: total_UNIT with its range, and a part under every other NAME_UNIT."""
    show = gib if unit == "bytes" else duration
    amounts = {name.removesuffix(f"_{unit}"): amount for name, amount in estimate.items() if name.endswith(f"_{unit}")}
    parts = [f"{name} {show(amount)}" for name, amount in amounts.items() if amount and name not in NO_PARTS]
    many = estimate.get("candidates")
    together = f" for {many} {'candidate' if many == 1 else 'candidates'}" if many else ""
    return f"{show(amounts['total'])} ({show(amounts['low'])} to {show(amounts['high'])}){together}: {', '.join(parts)}"


def _rung(rung: Mapping[str, Any]) -> str:
    """One cut of the memory ladder: what it leaves, and what it costs."""
    slower = f", {rung['seconds']:.0%} slower" if rung["seconds"] else ""
    absent = "" if rung["available"] else " (not on this device)"
    return f"{rung['name']}{absent}: {gib(rung['bytes'])}, {gib(rung['saved'])} less{slower}; quality: {rung['quality']}"


def supervised(row: Sequence[tuple[str, bool]]) -> Text:
    """A row as the model sees it: what is learnt stands between « and », what is only read is dim."""
    text = Text()
    for learnt, run in groupby(row, key=itemgetter(1)):
        pieces = _clipped("".join(piece for piece, _ in run))
        text.append(f"«{pieces}»" if learnt else pieces, style="bold green" if learnt else "dim")
    return text


def _clipped(text: str) -> str:
    if len(text) <= SHOWN_HEAD + SHOWN_TAIL:
        return text
    return f"{text[:SHOWN_HEAD]} [... {len(text) - SHOWN_HEAD - SHOWN_TAIL:,} characters ...] {text[-SHOWN_TAIL:]}"
