"""report.html: one file that tells a run, made from its folder alone. It opens from
disk and asks the network for nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from loraloom.records import Advice, Trial
from loraloom.report.commands import (
    load_snippet,
    reproduce_command,
    resume_command,
    serve_command,
    train_command,
    try_command,
)
from loraloom.report.findings import findings
from loraloom.report.forecast import forecasts
from loraloom.report.frame import drawn
from loraloom.report.headline import headline
from loraloom.report.importance import importance_of
from loraloom.report.landscape import search_figures
from loraloom.report.modules import module_figures
from loraloom.report.plots import figures, read_curves
from loraloom.report.table import columns, row, scores_first, setting
from loraloom.report.words import duration, held_in, number
from loraloom.store.diversity import read_diversity
from loraloom.store.folder import RunFolder, write_atomically
from loraloom.store.samples import read_samples


@dataclass(frozen=True)
class Setting:
    """One line of the plan; `winner` is what the winner used instead, where the search
    set another value."""

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
    """The page as text. Everything that came from data, labels or names is escaped, and
    no script but ours may run."""
    result = folder.result()
    shown = scores_first(columns(result))
    events = list(folder.events())
    curves = figures(
        result, read_curves(events, {trial.id: trial.planned_steps for trial in result.trials})
    )
    best = result.trial(result.best)
    all_figures = [
        *curves,
        *search_figures(result),
        *module_figures(best, folder.signals(best.id) if best else {}),
    ]
    return drawn(
        "page.html.j2",
        all_figures,
        ["page.js"],
        result=result,
        best=best,
        headline=headline(result),
        took=duration(result.seconds),
        columns=shown,
        rows=[row(result, trial, shown) for trial in result.ranked()],
        importance=importance_of(result),
        forecasts=forecasts(result, events),
        samples=read_samples(folder),
        diversity=read_diversity(folder),
        settings=_settings(folder.resolved(), result.trial(result.best)),
        findings=findings(result),
        environment={key: number(value) for key, value in result.environment.items()},
        resume=resume_command(folder, result),
        reproduce=reproduce_command(folder, result),
        train_winner=train_command(folder, result),
        snippet=load_snippet(folder, result),
        held=held_in(result.base_quantization),
        ask=try_command(folder, result),
        serve=serve_command(folder, result),
    )


def _settings(resolved: Mapping[str, Advice], best: Trial | None) -> dict[str, list[Setting]]:
    """Settings by the first part of their key, in the order of resolved.yaml."""
    grouped: dict[str, list[Setting]] = {}
    for key, advice in resolved.items():
        used = None if best is None else setting(best, key)
        winner = number(used) if best is not None and key in best.params and used != advice.value else ""
        line = Setting(
            key.partition(".")[2] or key, number(advice.value), winner, advice.reason, advice.source
        )
        grouped.setdefault(key.partition(".")[0], []).append(line)
    return grouped
