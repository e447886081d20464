"""Will the model learn to stop?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from loraloom.data.encode import Row
from loraloom.data.rows import IGNORED, sides_of
from loraloom.pipeline.preflight.result import CheckResult
from loraloom.pipeline.preflight.subject import Subject
from loraloom.records import built_as

NAME = "stop"
NAMED = 64
"""Rows whose last token is named in the message."""


def inspect(subject: Subject) -> CheckResult:
    """Fails where the last thing that a row teaches is not the token that ends a turn.

    Masking padding by its id hides that token wherever padding and end of text share one, and a template
    may leave it out: the model then never stops (huggingface/trl#588).
    """
    whole = subject.whole
    data = subject.data
    if whole is None or data is None:
        return CheckResult(NAME, "skipped", "the data could not be encoded")
    if built_as(whole.task) == "seq_cls":
        return CheckResult(NAME, "skipped", "a classifier writes nothing")
    ends = stop_ids(subject.tokenizer)
    if whole.format == "text" and subject.tokenizer.eos_token_id is None:
        return CheckResult(
            NAME,
            "ok",
            "raw text, and the tokenizer has no end of text: generation ends at a limit of length",
        )
    names = ", ".join(
        sorted({str(subject.tokenizer.decode([_last(row)])) for row in sides_of(whole.train[:NAMED])})
    )
    open_rows = _without_end(sides_of(whole.train), ends)
    if open_rows:
        return CheckResult(
            NAME,
            "fail",
            "the end of a turn is not learnt: the model would not stop",
            number=(
                f"{open_rows:,} of {len(whole.train):,} training rows do not end in a supervised end"
                " token"
            ),
            cause=_cause(subject, names),
            command=_command(subject),
        )
    kept = len(data.train) - _without_end(sides_of(data.train), ends)
    if not kept and data.format != "text":
        return CheckResult(
            NAME,
            "fail",
            "the end of every turn is cut off: the model would not stop",
            number=(
                f"all {len(data.train):,} rows are longer than {subject.plan.settings.length:,} tokens"
            ),
            cause="rows are cut at their end, where the end token stands",
            command=f"--set data.max_length={max(len(row) for row in whole.train)}",
        )
    return CheckResult(
        NAME,
        "ok",
        f"rows end in {names}, and that is learnt",
        number=f"{kept:,} of {len(data.train):,} rows as cut",
    )


def stop_ids(tokenizer: Any) -> frozenset[int]:
    """Tokens that can end a turn: the tokenizer's special ones, and those that were
    added to it, but for white space."""
    added = {
        number for number, token in tokenizer.added_tokens_decoder.items() if str(token.content).strip()
    }
    return frozenset({*tokenizer.all_special_ids, *added})


def _last(row: Row) -> int:
    """The last token that a row teaches."""
    return int(row.labels[row.labels != IGNORED][-1])


def _without_end(rows: Iterable[Row], ends: frozenset[int]) -> int:
    return sum(_last(row) not in ends for row in rows)


def _cause(subject: Subject, names: str) -> str:
    if subject.tokenizer.eos_token_id is None:
        return "the tokenizer has no end-of-text token, so that nothing marks where an answer ends"
    return (
        f"the last supervised token is {names!r}, no special token: the chat template ends its turns"
        " without one"
    )


def _command(subject: Subject) -> str:
    if subject.tokenizer.eos_token_id is None:
        return "set `eos_token` in tokenizer_config.json to the token that ends a text"
    return "let the chat template end the assistant's turn with {{ eos_token }}"
