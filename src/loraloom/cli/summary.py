"""What a command says at its end, for people, on stdout."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from loraloom.config.keys import keys
from loraloom.report.words import MISSING, duration, gib, metric_words, number, with_error

if TYPE_CHECKING:
    from pathlib import Path

    from loraloom.pipeline.prepare import Prepared
    from loraloom.pipeline.session import Outcome
    from loraloom.store.database import RunSummary
    from loraloom.store.result import RunResult

PREVIEWED = 2
"""Rows of training data that a plan shows with their masks."""

_NO_PARTS = ("total", "low", "high", "one_candidate", "budget")
"""Amounts in a forecast that are not parts of its total."""

_AUTO_CLASS = {
    "causal_lm": "AutoModelForCausalLM",
    "seq_cls": "AutoModelForSequenceClassification",
    "seq2seq_lm": "AutoModelForSeq2SeqLM",
}


def show_end(done: Outcome | Prepared) -> dict[str, Any]:
    """The end of `train` or `tune`, or their plan after --dry-run. Returns the document of --json."""
    from loraloom.pipeline.prepare import Prepared

    if isinstance(done, Prepared):
        return show_plan(done)
    show_outcome(done)
    return done.to_json()


def show_outcome(outcome: Outcome) -> None:
    """The table of candidates, where report and adapter are, and how to load the adapter."""
    from loraloom.report.table import trials_table

    console = _console()
    result, folder = outcome.result, outcome.folder
    console.print()
    console.print(trials_table(result))
    for sentence in filter(None, (result.verdict, *(f"{f.level}: {f.name}. {f.symptom}" for f in result.findings))):
        _line(console, sentence)
    _line(console)
    _line(console, f"report   {folder.report_path}")
    if result.best is not None and folder.best.is_dir():
        _line(console, f"adapter  {folder.best}")
        _line(console, f"try it   {_try_it(result, folder.best)}")
        _line(console, f"load it  {_load_it(result, folder.best)}")


def show_plan(prepared: Prepared) -> dict[str, Any]:
    """What was recognised in the data and what of it is learnt, each setting with reason and source, forecasts, warnings.

    Returns the document of `plan --json`.
    """
    from loraloom.data.encode import preview
    from loraloom.plan.planner import plan_json

    console = _console()
    document = plan_json(prepared.plan)
    _line(console, prepared.recognised.note)
    for row in preview(prepared.data, prepared.tokenizer, n=PREVIEWED):
        console.print(_supervised(row), soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("setting", no_wrap=True)
    table.add_column("value", overflow="fold", max_width=24)
    table.add_column("reason, and its source", ratio=1)
    settings: Mapping[str, Any] = document["settings"]
    for key in sorted(settings, key=[*keys(), *settings].index):
        advice = settings[key]
        reason = Text.assemble(advice["reason"], (f"  [{advice['source']}]", "dim"))
        table.add_row(Text(key), Text(number(advice["value"])), reason)
    console.print(table)
    for name, unit in (("memory", "bytes"), ("time", "seconds")):
        if name in document["forecast"]:
            _line(console, f"{name}: {_estimate(document['forecast'][name], unit)}")
    for warning in document["warnings"]:
        _line(console, f"warning: {warning}")
    return document


def show_metrics(document: Mapping[str, Any]) -> None:
    """What was scored on what, then each metric with its standard error."""
    console = _console()
    metrics: Mapping[str, float] = document["metrics"]
    for name, value in document.items():
        if name != "metrics":
            _line(console, f"{name}: {number(value)}")
    for name, value in metrics.items():
        if not name.endswith("_se"):
            _line(console, f"{metric_words(name)}: {with_error(value, metrics.get(f'{name}_se', 0.0))}")


def show_answers(answers: Sequence[Mapping[str, Any]]) -> None:
    """Answers one after another, under the prompt and the name of who gave them."""
    console = _console()
    for last, answer in zip([None, *answers], answers, strict=False):
        if last is None or last["prompt"] != answer["prompt"]:
            console.print(Text(f"\n> {answer['prompt']}", style="bold"), soft_wrap=True)
        console.print(Text(f"[{answer['source']}]", style="dim"))
        console.print(Text(str(answer["text"])), soft_wrap=True)


def show_runs(runs: Sequence[RunSummary], output_dir: str) -> None:
    """One row a run."""
    console = _console()
    if not runs:
        _line(console, f"no runs in {output_dir} yet; loraloom tune makes one")
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("name", "verb", "status", "trials", "time"):
        table.add_column(heading, no_wrap=True)
    table.add_column("started", min_width=10)
    for heading in ("model", "result"):
        table.add_column(heading, overflow="fold")
    for run in runs:
        started = run.started_at[:16].replace("T", " ")
        cells = (run.name, run.verb, run.status, str(run.trials), duration(run.seconds), started, run.model, _result(run))
        table.add_row(*(Text(cell) for cell in cells))
    console.print(table)


def _result(run: RunSummary) -> str:
    if run.best_value is None:
        return MISSING
    base = "" if run.baseline_value is None else f", bare base {with_error(run.baseline_value)}"
    return f"{metric_words(run.metric)} {with_error(run.best_value, run.best_se or 0.0)}{base}"


def show_facts(facts: Mapping[str, Any], indent: str = "") -> None:
    """Nested facts, one a line."""
    console = _console()
    for name, value in facts.items():
        if isinstance(value, Mapping):
            _line(console, f"{indent}{name}")
            show_facts(value, indent + "  ")  # pyright: ignore[reportUnknownArgumentType]
        else:
            _line(console, f"{indent}{name}: {number(value)}")


def _console() -> Console:
    return Console(highlight=False, emoji=False)


def _line(console: Console, text: str = "") -> None:
    """A line that is never wrapped or styled: paths and commands stay whole when they are copied."""
    console.print(Text(text), soft_wrap=True)


def _try_it(result: RunResult, adapter: Path) -> str:
    if result.task == "seq_cls":
        return f"loraloom evaluate {shlex.quote(str(adapter.parent / 'config.yaml'))} --adapter {shlex.quote(str(adapter))}"
    return f'loraloom generate --adapter {shlex.quote(str(adapter))} --base "..."'


def _load_it(result: RunResult, adapter: Path) -> str:
    head = f", num_labels={len(result.labels)}" if result.task == "seq_cls" and result.labels else ""
    base = f"{_AUTO_CLASS[result.task]}.from_pretrained({result.model!r}{head})"
    return f"PeftModel.from_pretrained({base}, {str(adapter)!r})"


def _estimate(estimate: Mapping[str, float], unit: str) -> str:
    """A forecast as `plan --json` has it: total_UNIT with its range, and a part under every other NAME_UNIT."""
    show = gib if unit == "bytes" else duration
    amounts = {name.removesuffix(f"_{unit}"): amount for name, amount in estimate.items() if name.endswith(f"_{unit}")}
    parts = [f"{name} {show(amount)}" for name, amount in amounts.items() if amount and name not in _NO_PARTS]
    together = f" for {estimate['candidates']} candidates" if estimate.get("candidates") else ""
    return f"{show(amounts['total'])} ({show(amounts['low'])} to {show(amounts['high'])}){together}: {', '.join(parts)}"


def _supervised(row: Sequence[tuple[str, bool]]) -> Text:
    """A row as the model sees it: what is learnt stands between « and », what is only read is dim."""
    text = Text()
    for learnt, run in groupby(row, key=itemgetter(1)):
        pieces = "".join(piece for piece, _ in run)
        text.append(f"«{pieces}»" if learnt else pieces, style="bold green" if learnt else "dim")
    return text
