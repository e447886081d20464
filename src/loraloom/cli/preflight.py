"""What `check` says, for people: the rows with what is learnt of them, then every check with its number, cause and cure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from loraloom.cli.screen import plain_console
from loraloom.cli.summary import supervised

if TYPE_CHECKING:
    from loraloom.pipeline.check import Checked, Preview
    from loraloom.pipeline.preflight.result import CheckResult

COLOURS = {"ok": "green", "warn": "yellow", "fail": "bold red", "skipped": "dim"}


def show_checks(checked: Checked) -> None:
    """Preview, then the checks in their order, then one line that sums up."""
    console = plain_console()
    _line(console, checked.note)
    for warning in checked.warnings:
        _line(console, f"warning: {warning}")
    if checked.preview is not None:
        for row in checked.preview.examples:
            console.print(supervised(row), soft_wrap=True)
        _line(console, _counts(checked.preview, checked.task))
    _line(console)
    width = max(len(result.name) for result in checked.results)
    for result in checked.results:
        for text in _told(result, width):
            console.print(text, soft_wrap=True)
    _line(console)
    levels = [result.level for result in checked.results]
    counts = ((levels.count("fail"), "fail"), (levels.count("warn"), "warn"), (levels.count("skipped"), "skipped"))
    _line(console, ", ".join(f"{count} {level}" for count, level in counts if count) or "nothing stands in the way")


def _counts(preview: Preview, task: str) -> str:
    """ "1,204 rows, 96,000 tokens, 62% of them learnt, 0.4% of the rows cut"."""
    learnt = f", {preview.supervised_share:.0%} of them learnt" if task == "causal_lm" else ""
    left_out = f", {preview.dropped:,} left out" if preview.dropped else ""
    return f"{preview.rows:,} rows, {preview.tokens:,} tokens{learnt}, {preview.cut_share:.1%} of the rows cut{left_out}"


def _told(result: CheckResult, width: int) -> list[Text]:
    head = Text.assemble(result.name.ljust(width), "  ", (result.level.ljust(7), COLOURS[result.level]), "  ", result.what)
    if result.number and result.level in ("ok", "skipped"):
        head.append(f"  [{result.number}]", style="dim")
    margin = " " * (width + 11)
    parts = [("command", result.command)]
    if result.level in ("warn", "fail"):
        parts = [("number", result.number), ("cause", result.cause), ("do", result.command)]
    return [head, *(Text(f"{margin}{name}: {part}") for name, part in parts if part)]


def _line(console: Console, text: str = "") -> None:
    """A line that is never wrapped: commands stay whole when they are copied."""
    console.print(Text(text), soft_wrap=True)
