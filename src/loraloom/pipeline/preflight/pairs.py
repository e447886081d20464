"""Is there something to choose in every pair, and does it survive the cut to the plan's length?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from loraloom.data.pairs import is_empty, is_same, prompt_and_answers
from loraloom.data.recognise import Recognised
from loraloom.data.rows import IGNORED, Example, Judged, Row, length_of
from loraloom.data.table import Table, counted
from loraloom.pipeline.preflight.result import CheckResult
from loraloom.pipeline.preflight.subject import Subject
from loraloom.records import COMPARED

NAME = "labels"


def without_choice(subject: Subject) -> CheckResult | None:
    """A fault: rows with an empty answer, or with two that are the same. None where there are none."""
    tables = subject.splits.tables.values()
    found = sorted(each for table in tables for each in _faults(table, subject.recognised))
    if not found:
        return None
    (prefix, place, first), *_ = found
    counts = Counter(reason for _, _, reason in found)
    told = ", ".join(f"{count:,} where {reason}" for reason, count in counts.items())
    rows = sum(map(len, subject.splits.tables.values()))
    return CheckResult(
        NAME,
        "fail",
        f"{prefix}{place}: {first}",
        number=f"{told}; of {counted(rows, 'row')}",
        cause="nothing can be learnt from it: which answer is better shows in what the two differ in",
        command="remove these rows, or write the answers that were meant",
    )


def left_out_by_cut(subject: Subject) -> CheckResult | None:
    """A warning: rows that the cut leaves nothing of to compare, which are left out. None where there
    are none."""
    assert subject.whole is not None
    length = subject.plan.settings.length
    examples = [example for rows in subject.whole.splits.values() for example in rows]
    lost = Counter(reason for example in examples if (reason := _lost(example, length)))
    if not lost:
        return None
    longest = max(length_of(example, "preference") for example in examples)
    limit = subject.facts.model.max_positions or longest
    return CheckResult(
        NAME,
        "warn",
        f"{sum(lost.values()):,} of {counted(len(examples), 'row')} are left out: at data.max_length ="
        f" {length:,} nothing of them is left to compare",
        number=", ".join(f"{count:,} whose {reason}" for reason, count in lost.items()),
        cause="rows are cut at their end, where the answers stand",
        command=f"--set data.max_length={min(longest, limit)}",
    )


def told(subject: Subject) -> tuple[str, ...]:
    """What the cut leaves out of a run on preferences, as a sentence for its plan."""
    found = left_out_by_cut(subject) if subject.recognised.task in COMPARED else None
    return (f"{found.what} ({found.number}); {found.command}",) if found else ()


def _faults(table: Table, recognised: Recognised) -> Iterable[tuple[str, int, str]]:
    """Place (as of a table) and fault of each row that has one."""
    columns = recognised.columns
    for index, row in enumerate(table.rows):
        _, answers = prompt_and_answers(row, columns)
        if len(answers) > 1 and is_same(row, columns):
            yield *table.places[index], "both answers are the same"
        elif any(map(is_empty, answers)):
            yield *table.places[index], "an answer is empty"


def _lost(example: Example, length: int) -> str | None:
    """Why nothing of a row is left to compare within `length` tokens; None where something is."""
    if any(not (side.labels[:length] != IGNORED).any() for side in example.sides):
        return "prompt fills it"
    if isinstance(example, Row | Judged):
        return None
    chosen, rejected = (bytes(side.input_ids[:length]) for side in example.sides)
    return "answers are the same up to there" if chosen == rejected else None
