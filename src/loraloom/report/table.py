"""The table of candidates: as text cells, and for a terminal, as wide as it is told."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Group
from rich.text import Text

from loraloom.config import names
from loraloom.config.choices import UNIFORM
from loraloom.records import PRUNED_BY_HAND, Trial
from loraloom.report.fit import Shown, fitted
from loraloom.report.words import MISSING, count, duration, gib, metric_words, number, share, with_error
from loraloom.store.result import RunResult

STATUS_STYLES = {
    "completed": "green",
    "pruned": "yellow",
    "diverged": "red",
    "failed": "red",
    "running": "cyan",
    "waiting": "dim",
}
SCORES_FIRST = {"trial": 0, "metric": 1, "test": 2}


@dataclass(frozen=True)
class Cell:
    """A cell of the table of candidates; `order` is what the page sorts by, empty for
    what is not known."""

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
class Column:
    """One column. `importance` 0 always stays; of the others the highest leaves first
    when the terminal is narrow."""

    key: str
    heading: str
    cell: Callable[[RunResult, Trial], str]
    importance: int
    numeric: bool = True
    order: Callable[[RunResult, Trial], float | str] | None = None
    """What to sort by when the cell's text would sort wrongly; NaN comes last."""


def columns(result: RunResult) -> list[Column]:
    """The columns that this result can fill, in the order in which they are shown."""
    metric = result.metric
    test = test_metric(metric)
    shown = [
        Column("trial", "trial", lambda _, trial: trial.id, 0, numeric=False),
        _setting("r", "r", names.R, 1),
        *_allocations(result),
        *_augmentations(result),
        _setting("alpha", "alpha", names.LORA_ALPHA, 5),
        _setting("targets", "targets", names.TARGET_MODULES, 6, numeric=False),
        _setting("rate", "rate", names.LEARNING_RATE, 1),
        _setting("batch", "batch", names.PER_DEVICE_TRAIN_BATCH_SIZE, 4),
        _measured("metric", metric, 0),
    ]
    if test != metric and any(test in trial.metrics for trial in result.trials):
        shown.append(_measured("test", test, 2))
    return [
        *shown,
        Column(
            "parameters",
            "trained (of base)",
            _trained,
            7,
            order=lambda _, trial: trial.trainable_parameters,
        ),
        Column(
            "memory",
            "peak memory",
            lambda _, trial: gib(trial.peak_bytes),
            8,
            order=lambda _, t: t.peak_bytes,
        ),
        Column(
            "seconds", "time", lambda _, trial: duration(trial.seconds), 3, order=lambda _, t: t.seconds
        ),
        *([Column("made", "made", _made, 1, numeric=False)] if _by_hand(result) else []),
        Column("status", "status", lambda _, trial: trial.status, 0, numeric=False),
    ]


def _allocations(result: RunResult) -> list[Column]:
    """Where rank went, where it did not go to all layers alike in all candidates."""
    if all(trial.settings.get(names.RANK_ALLOCATION, UNIFORM) == UNIFORM for trial in result.trials):
        return []
    return [_setting("allocation", "rank goes to", names.RANK_ALLOCATION, 1, numeric=False)]


def _augmentations(result: RunResult) -> list[Column]:
    """How training rows were changed, where they were for some candidates."""
    if all(names.AUGMENT not in trial.params for trial in result.trials):
        return []
    return [_setting("augment", "rows changed", names.AUGMENT, 1, numeric=False)]


def _by_hand(result: RunResult) -> bool:
    """Whether a user had a part in who was tried."""
    return any(trial.parent or trial.reason == PRUNED_BY_HAND for trial in result.trials)


def _made(_: RunResult, trial: Trial) -> str:
    """What a user did to a candidate."""
    made = f"by hand from {trial.parent}{', with its weights' if trial.warm else ''}"
    left = PRUNED_BY_HAND if trial.reason == PRUNED_BY_HAND else ""
    return ", ".join(filter(None, (made if trial.parent else "", left)))


def trials_table(
    result: RunResult, width: int | None = None, rows: int | None = None, *, more: str = "--all"
) -> Group:
    """The table for a terminal, best first.

    Args:
        width: columns of text to fit into; None shows all columns. The least important are left out
            until it fits, and a line below the table names them.
        rows: candidates to show; None shows all. The best ones stay, and the plan's own setting.
        more: what shows everything.
    """
    ranked = result.ranked()
    shown = [trial for trial in ranked if rows is None or trial in ranked[:rows] or mark(result, trial)]
    captions = ["★ best   ◆ the plan's own setting" if result.default else "★ best"]
    if len(shown) < len(ranked):
        captions.append(f"{len(ranked) - len(shown)} more candidates ({more} shows them)")
    styles = ["bold" if trial.id == result.best else "" for trial in shown]
    return fitted(
        (_shown(result, column, shown) for column in columns(result)),
        width,
        styles=styles,
        captions=captions,
        more=more,
    )


def mark(result: RunResult, trial: Trial) -> str:
    """ "best", "default" (the plan's own setting), or nothing."""
    if trial.id == result.best:
        return "best"
    return "default" if trial.id == result.default else ""


def role(result: RunResult, trial: Trial) -> str:
    """How a candidate is drawn: best, default, pruned, diverged, failed or other."""
    marked = mark(result, trial)
    if marked:
        return marked
    return trial.status if trial.status in ("pruned", "diverged", "failed") else "other"


def row(result: RunResult, trial: Trial, shown: Sequence[Column]) -> Row:
    cells = tuple(Cell(column.cell(result, trial), _order(column, result, trial)) for column in shown)
    return Row(trial.id, role(result, trial), mark(result, trial), trial.reason or "", cells)


def _order(column: Column, result: RunResult, trial: Trial) -> str:
    value = column.order(result, trial) if column.order else column.cell(result, trial)
    # Only NaN differs from itself.
    return "" if value != value else str(value)


def scores_first(shown: Sequence[Column]) -> list[Column]:
    """Columns in the order of a page: on a phone the rest of a row lies beyond the edge."""
    return sorted(shown, key=lambda column: SCORES_FIRST.get(column.key, len(SCORES_FIRST)))


def test_metric(metric: str) -> str:
    """The same measure on the sealed split: "validation_loss" -> "test_loss"."""
    return on_split(metric, "test")


def on_split(metric: str, split: str) -> str:
    """The same measure on another split than validation."""
    return f"{split}_{metric.partition('_')[2]}" if metric.startswith("validation_") else metric


def score(trial: Trial, metric: str) -> str:
    """The metric of `trial` with its standard error."""
    return with_error(trial.metrics.get(metric, math.nan), trial.metrics.get(f"{metric}_se", math.nan))


def setting(trial: Trial, key: str) -> object:
    """What `trial` used for a dotted key, as the search drew it (a batch may run in
    pieces); None when it is not known."""
    return trial.params.get(key, trial.settings.get(key))


def _setting(key: str, heading: str, dotted: str, importance: int, *, numeric: bool = True) -> Column:
    def order(_: RunResult, trial: Trial) -> float | str:
        value = setting(trial, dotted)
        if isinstance(value, (int, float)):
            return value
        return math.nan if numeric else number(value)

    return Column(
        key, heading, lambda _, trial: number(setting(trial, dotted)), importance, numeric, order
    )


def _measured(key: str, metric: str, importance: int) -> Column:
    return Column(
        key,
        metric_words(metric),
        lambda _, trial: score(trial, metric),
        importance,
        order=lambda _, trial: trial.metrics.get(metric, math.nan),
    )


def _trained(result: RunResult, trial: Trial) -> str:
    if not trial.trainable_parameters:
        return MISSING
    parameters = count(trial.trainable_parameters)
    return (
        f"{parameters} ({share(trial.trainable_parameters, result.base_parameters)})"
        if result.base_parameters
        else parameters
    )


def _shown(result: RunResult, column: Column, trials: Sequence[Trial]) -> Shown:
    cells = [Text(column.cell(result, trial), style=_style(column, trial)) for trial in trials]
    if column.key == "trial":
        marks = {"best": "★ ", "default": "◆ "}
        marked = [
            Text(marks.get(mark(result, trial), "  ")) + cell
            for trial, cell in zip(trials, cells, strict=True)
        ]
        return Shown("  trial", marked, column.importance, column.numeric)
    # The words of a metric stand below each other: a heading must not be wider than its numbers.
    return Shown(column.heading.replace(" ", "\n", 1), cells, column.importance, column.numeric)


def _style(column: Column, trial: Trial) -> str:
    return STATUS_STYLES.get(trial.status, "") if column.key == "status" else ""
