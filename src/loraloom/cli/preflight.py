"""What `check` says, for people: every check, what is wrong with number, cause and
cure, how varied the rows are, then what is learnt of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from loraloom.cli.learnt import rows_words, show_rows
from loraloom.cli.screen import plain_console, sentence_width
from loraloom.report.diversity import Line, asking
from loraloom.report.fit import shortened, wrapped

if TYPE_CHECKING:
    from loraloom.pipeline.check import Checked, Preview
    from loraloom.pipeline.preflight.result import CheckResult

COLOURS = {"ok": "green", "warn": "yellow", "fail": "bold red", "skipped": "dim"}
PREVIEWED = 2
"""Rows that are shown where a screen has to hold all."""


def show_checks(checked: Checked, *, everything: bool = False) -> None:
    """The checks in their order, one line that sums up, and last what is learnt of the rows.

    Args:
        everything: what is well with its number too, and all rows that were looked at.
    """
    console = plain_console()
    width = None if everything else sentence_width(console)
    longest = max(len(result.name) for result in checked.results)
    lines = _broken(
        width,
        checked.note,
        rows_words(checked.rows),
        *(f"warning: {warning}" for warning in checked.warnings),
    )
    lines += [
        Text(),
        *(line for result in checked.results for line in _told(result, longest, width)),
        Text(),
    ]
    lines += [*_varied(checked.lines, width, everything=everything), Text()]
    lines += _broken(width, _sum(checked.results, asking(checked.lines)))
    if checked.preview is not None:
        lines += [*_broken(width, _counts(checked.preview, checked.task)), Text()]
    for line in lines:
        console.print(line, soft_wrap=True)
    if checked.preview is not None:
        rows = checked.preview.examples if width is None else checked.preview.examples[:PREVIEWED]
        show_rows(console, rows, said=len(lines), everything=everything)


def _broken(width: int | None, *sentences: str) -> list[Text]:
    return [Text(line) for sentence in sentences for line in wrapped(sentence, width).split("\n")]


def _varied(lines: Sequence[Line], width: int | None, *, everything: bool) -> list[Text]:
    """One line a matter of the data; in full what asks for something, its meaning and what to do."""
    longest = max((len(line.name) for line in lines), default=0)
    margin = " " * (longest + 2)
    shown: list[Text] = []
    for line in lines:
        room = None if width is None else width - len(margin)
        found = line.found if line.asks or room is None else shortened(line.found, room)
        head = wrapped(f"{line.name.ljust(longest)}  {found}", width, margin)
        shown += [Text(part, "yellow" if line.asks else "") for part in head.split("\n")]
        told = (("means", line.means), ("do", line.do), ("new", line.examples if everything else ""))
        for name, text in told:
            if text:
                shown += _broken_at(margin, f"{name}: {text}", width)
    return shown


def _broken_at(margin: str, text: str, width: int | None) -> list[Text]:
    """A text in lines behind a margin; what is typed after --set stays beside it."""
    whole = f"{margin}{text}".replace("--set ", "--set\0")
    lines = wrapped(whole, width, f"{margin}  ").replace("\0", " ")
    return [Text(line) for line in lines.split("\n")]


def _sum(results: Sequence[CheckResult], asking: int) -> str:
    """ "1 fail, 2 warn", or that all is well but what `asking` lines say of the data."""
    levels = [result.level for result in results]
    counts = (
        (levels.count("fail"), "fail"),
        (levels.count("warn"), "warn"),
        (levels.count("skipped"), "skipped"),
    )
    return ", ".join(f"{count} {level}" for count, level in counts if count) or (
        "no check fails or warns" if asking else "no problems found"
    )


def _counts(preview: Preview, task: str) -> str:
    """ "1,204 rows, 96,000 tokens, 62% of them learnt, 0.4% of the rows cut"."""
    marked = task in ("causal_lm", "preference")
    learnt = f", {preview.supervised_share:.0%} of them learnt" if marked else ""
    left_out = f", {preview.dropped:,} left out" if preview.dropped else ""
    return (
        f"{preview.rows:,} rows, {preview.tokens:,} tokens{learnt}, {preview.cut_share:.1%} of the rows"
        f" cut{left_out}"
    )


def _told(result: CheckResult, longest: int, width: int | None) -> list[Text]:
    """What is wrong in full: number, cause, and what to do in one line, so that it can
    be copied. What is well in one line."""
    margin = " " * (longest + 11)
    wrong = result.level in ("warn", "fail")
    what = result.what if wrong or width is None else shortened(result.what, width - len(margin))
    first, *rest = wrapped(f"{margin}{what}", width, margin).split("\n")
    head = Text.assemble(
        result.name.ljust(longest),
        "  ",
        (result.level.ljust(7), COLOURS[result.level]),
        "  ",
        first.strip(),
    )
    number = f"  [{result.number}]"
    if result.number and not wrong and (width is None or len(head) + len(number) <= width):
        head.append(number, style="dim")
    parts = [("number", result.number), ("cause", result.cause)] if wrong else []
    told = [wrapped(f"{margin}{name}: {part}", width, f"{margin}  ") for name, part in parts if part]
    if result.command:
        told.append(f"{margin}{'do' if wrong else 'command'}: {result.command}")
    return [head, *(Text(line) for text in (*rest, *told) for line in text.split("\n"))]
