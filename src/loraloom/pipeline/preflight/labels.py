"""Is there something to learn in every row, and does it survive the cut to the plan's length?"""

from __future__ import annotations

from loraloom.data.encode import Encoded, encode
from loraloom.data.rows import IGNORED, length_of, sides_of
from loraloom.data.split import Splits
from loraloom.data.table import Table
from loraloom.errors import DataError
from loraloom.pipeline.preflight.pairs import left_out_by_cut, without_choice
from loraloom.pipeline.preflight.result import CheckResult
from loraloom.pipeline.preflight.subject import Subject
from loraloom.records import COMPARED

NAME = "labels"
LOST_LIMIT = 0.05
"""Share of the supervised tokens that a cut may cost before it is worth a warning."""


def inspect(subject: Subject) -> CheckResult:
    """A row of which nothing is learnt fails; more than 5% of the supervised tokens cut warns.

    Raw text is divided, never cut, and a blank text is no row: neither counts.
    """
    data = subject.data
    if data is None or subject.whole is None:
        return CheckResult(NAME, "skipped", "the data could not be encoded")
    dropped = {name: report.dropped for name, report in data.report.items() if report.dropped}
    if data.task in COMPARED:
        if found := without_choice(subject) or left_out_by_cut(subject):
            return found
    elif dropped and data.format != "text":
        return _empty(subject, next(iter(dropped)), sum(dropped.values()))
    report = max(data.report.values(), key=lambda one: one.share_lost)
    length = subject.plan.settings.length
    if report.share_lost > LOST_LIMIT:
        return CheckResult(
            NAME,
            "warn",
            f"{report.share_lost:.0%} of the supervised tokens are cut off",
            number=(
                f"{report.supervised_lost:,} tokens of {report.cut:,} rows longer than data.max_length ="
                f" {length:,}"
            ),
            cause="what is cut stands at the end of a row: the answer, and with it how it ends",
            command=_longer(subject),
        )
    train = data.report["train"]
    whole = {"seq_cls": "a class each", "reward": "a choice each"}
    tokens = f"{train.supervised / max(1, train.tokens):.0%} of {train.tokens:,} tokens"
    learnt = whole.get(data.task, tokens)
    cut = f"{train.cut:,} rows cut" if train.cut else "none cut"
    return CheckResult(
        NAME, "ok", "every row has something to learn", number=f"{train.rows:,} rows, {learnt}, {cut}"
    )


def _empty(subject: Subject, split: str, count: int) -> CheckResult:
    """Name the first row that has nothing to be trained on, and say whether it never had or was cut."""
    assert subject.whole is not None
    table = subject.splits.tables[split]
    length = subject.plan.settings.length
    first = _first_empty(subject, table, length)
    place = table.origin(first)
    number = f"{count:,} of {sum(map(len, subject.splits.tables.values())):,} rows"
    alone = _encoded(subject, table.take([first]))
    if alone is None:
        return CheckResult(
            NAME,
            "fail",
            f"{place} has no supervised token",
            number=number,
            cause="there is a prompt and no answer, so that nothing is learnt from it",
            command=f"show it: {_show(table, first)}; then complete or remove it",
        )
    prompt = min(int((row.labels != IGNORED).argmax()) for row in sides_of(alone.train))
    return CheckResult(
        NAME,
        "fail",
        f"{place} has no supervised token left: its prompt has {prompt:,} tokens, the limit is"
        f" {length:,}",
        number=number,
        cause="rows are cut at their end, and all of the answer lies behind the cut",
        command=_longer(subject),
    )


def _first_empty(subject: Subject, table: Table, length: int) -> int:
    """Number of the first row of which nothing is kept, by halving."""
    low, high = 0, len(table)
    while high - low > 1:
        middle = (low + high) // 2
        if _loses_rows(subject, table.take(range(low, middle)), length):
            high = middle
        else:
            low = middle
    return low


def _loses_rows(subject: Subject, table: Table, length: int) -> bool:
    encoded = _encoded(subject, table)
    try:
        return encoded is None or encoded.cut(length).report["train"].dropped > 0
    except DataError:
        return True


def _encoded(subject: Subject, table: Table) -> Encoded | None:
    """These rows alone; None where none of them has a supervised token."""
    try:
        return encode(Splits(table), subject.recognised, subject.tokenizer, subject.recognised.task)
    except DataError:
        return None


def _longer(subject: Subject) -> str:
    """The flag that cuts less, as far as the model has positions."""
    assert subject.whole is not None
    whole = subject.whole
    longest = max(
        (length_of(row, whole.task) for rows in whole.splits.values() for row in rows), default=0
    )
    limit = subject.facts.model.max_positions or longest
    if longest > limit <= subject.plan.settings.length:
        return f"shorten the prompts, or take a model with more than {limit:,} positions"
    return f"--set data.max_length={min(longest, limit)}"


def _show(table: Table, index: int) -> str:
    """How to print a row of a file with lines; its place otherwise."""
    prefix, line = table.places[index]
    return f"sed -n {line}p {prefix.removesuffix(':')}" if prefix.endswith(":") else table.origin(index)
