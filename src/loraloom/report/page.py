"""report.html: one file that tells a run, made from its folder alone. It opens from disk and asks the network for nothing."""

from __future__ import annotations

import re
import secrets
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from loraloom.records import Advice, Finding, Trial
from loraloom.report.headline import headline
from loraloom.report.plots import figures, read_curves, role
from loraloom.report.table import Column, columns, mark, setting
from loraloom.report.words import duration, number
from loraloom.store.folder import RunFolder, write_atomically
from loraloom.store.plain import plain
from loraloom.store.result import RunResult

TEMPLATES = Path(__file__).parent / "templates"
SCORES_FIRST = {"trial": 0, "metric": 1, "test": 2}
MODEL_CLASSES = {
    "causal_lm": "AutoModelForCausalLM",
    "seq_cls": "AutoModelForSequenceClassification",
    "seq2seq_lm": "AutoModelForSeq2SeqLM",
}


@dataclass(frozen=True)
class Cell:
    """A cell of the table of candidates; `order` is what the page sorts by, empty for what is not known."""

    text: str
    order: str


@dataclass(frozen=True)
class Row:
    trial: str
    role: str
    mark: str
    reason: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Setting:
    """One line of the plan; `winner` is what the winner used instead, where the search set another value."""

    key: str
    value: str
    winner: str
    reason: str
    source: str


def write_report(folder: RunFolder) -> Path:
    """Draw the page of the run in `folder` and write it to its report.html.

    Raises:
        RequestError: the folder's files cannot be read.
        StoreError: the disk refuses.
    """
    write_atomically(folder.report_path, render(folder).encode("utf-8", "replace"))
    return folder.report_path


def render(folder: RunFolder) -> str:
    """The page as text. Everything that came from data, labels or names is escaped, and no script but ours may run."""
    result = folder.result()
    # Scores come first: on a phone the rest of a row lies beyond the edge.
    shown = sorted(columns(result), key=lambda column: SCORES_FIRST.get(column.key, len(SCORES_FIRST)))
    curves = read_curves(folder.events(), {trial.id: trial.planned_steps for trial in result.trials})
    return _template().render(
        result=result,
        best=result.trial(result.best),
        headline=headline(result),
        took=duration(result.seconds),
        columns=shown,
        rows=[_row(result, trial, shown) for trial in result.ranked()],
        figures=plain(figures(result, curves)),
        settings=_settings(folder.resolved(), result.trial(result.best)),
        findings=_findings(result),
        environment={key: number(value) for key, value in result.environment.items()},
        reproduce=reproduce_command(folder, result),
        train_winner=train_command(folder, result),
        snippet=load_snippet(folder, result),
        nonce=secrets.token_urlsafe(16),
        plotly=_plotly(),
        css=_own_file("page.css"),
        js=_own_file("page.js"),
    )


def reproduce_command(folder: RunFolder, result: RunResult) -> str:
    """The command that does the whole run again, under a new name, from where `runs/` lies."""
    where = folder.path.resolve()
    again = f"{where.name}-again"
    return _command(
        "loraloom", result.verb or "tune", f"{where.parent.name}/{where.name}/config.yaml", options=[("--name", again)]
    )


def train_command(folder: RunFolder, result: RunResult) -> str | None:
    """The command that trains the winner's setting alone; None when nothing won or nothing was searched."""
    best = result.trial(result.best)
    if best is None or not best.params:
        return None
    where = folder.path.resolve()
    options = [("--name", f"{where.name}-best"), *(("--set", f"{key}={_flag(value)}") for key, value in best.params.items())]
    return _command("loraloom", "train", f"{where.parent.name}/{where.name}/config.yaml", options=options)


def load_snippet(folder: RunFolder, result: RunResult, adapter: str | None = None) -> str | None:
    """Python that loads the winner with PEFT; None when nothing won.

    Args:
        adapter: how to call its folder; None calls it by its place beside `runs/`, wherever that is moved to.
    """
    if result.trial(result.best) is None:
        return None
    model_class = MODEL_CLASSES.get(result.task, "AutoModelForCausalLM")
    where = folder.path.resolve()
    heads = f", num_labels={len(result.labels)}" if result.labels else ""
    adapter = adapter or f"{where.parent.name}/{where.name}/best"
    return (
        "from peft import PeftModel\n"
        f"from transformers import {model_class}, AutoTokenizer\n\n"
        f"base = {model_class}.from_pretrained({result.model!r}{heads})\n"
        f"model = PeftModel.from_pretrained(base, {adapter!r})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({adapter!r})\n"
    )


def _row(result: RunResult, trial: Trial, shown: list[Column]) -> Row:
    cells = tuple(Cell(column.cell(result, trial), _order(column, result, trial)) for column in shown)
    return Row(trial.id, role(result, trial), mark(result, trial), trial.reason or "", cells)


def _order(column: Column, result: RunResult, trial: Trial) -> str:
    value = column.order(result, trial) if column.order else column.cell(result, trial)
    # Only NaN differs from itself.
    return "" if value != value else str(value)


def _settings(resolved: Mapping[str, Advice], best: Trial | None) -> dict[str, list[Setting]]:
    """Settings by the first part of their key, in the order of resolved.yaml."""
    grouped: dict[str, list[Setting]] = {}
    for key, advice in resolved.items():
        used = None if best is None else setting(best, key)
        winner = number(used) if best is not None and key in best.params and used != advice.value else ""
        line = Setting(key.partition(".")[2] or key, number(advice.value), winner, advice.reason, advice.source)
        grouped.setdefault(key.partition(".")[0], []).append(line)
    return grouped


def _findings(result: RunResult) -> list[tuple[str, Finding]]:
    """Findings of the run, then those of its trials, each with whom it is about; faults first."""
    found = [("", finding) for finding in result.findings]
    found += [(trial.id, finding) for trial in result.trials for finding in trial.findings]
    severity = {"fault": 0, "warning": 1}
    return sorted(found, key=lambda item: severity.get(item[1].level, 2))


def _flag(value: Any) -> str:
    """A value as `--set` reads it: JSON is YAML, except that a float needs its point."""
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_flag(item) for item in value)}]"  # pyright: ignore[reportUnknownVariableType]
    return str(value)


def _command(*words: str, options: Iterable[tuple[str, str]]) -> str:
    """A command as a shell reads it; a long one has every option on a line of its own."""
    parts = [shlex.join(words), *(shlex.join(option) for option in options)]
    on_one_line = " ".join(parts)
    return on_one_line if len(on_one_line) <= 100 else " \\\n  ".join(parts)


@cache
def _template() -> Any:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html.j2")


@cache
def _own_file(name: str) -> Markup:
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))


@cache
def _plotly() -> Markup:
    from plotly.offline import get_plotlyjs  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

    # A closing tag inside the library's strings would end the script early.
    return Markup(re.sub(r"</(?=script)", r"<\\/", str(get_plotlyjs()), flags=re.IGNORECASE))  # pyright: ignore[reportUnknownArgumentType]
