"""What a tokenizer makes no difference between is never on two sides of a split that
was drawn; in files it is counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loraloom.config.asked import DataConfig
from loraloom.data.encode import Encoded, encode
from loraloom.data.recognise import recognise
from loraloom.data.rows import Row, told_apart
from loraloom.data.split import split
from loraloom.data.table import Table
from loraloom.errors import DataError

UNKNOWN = "kjhgfdsqwertzuiopl"
"""Letters that make words which the tokenizer of the tests does not know: it reads all
of them as one."""


def table(rows: list[dict[str, Any]]) -> Table:
    return Table("d.jsonl", tuple(rows), tuple(("d.jsonl:", i) for i in range(1, len(rows) + 1)))


def labelled(first: int, count: int) -> list[dict[str, Any]]:
    """Texts that differ, but by pairs only in a word that the tokenizer does not know."""
    known = "abcdefghij"
    return [
        {"text": f"{known[n // 20]} {known[n // 2 % 10]} {UNKNOWN[n % 17 :]}", "label": "xy"[n // 2 % 2]}
        for n in range(first, first + count)
    ]


def drawn(
    rows: list[dict[str, Any]], tokenizer: Any, validation: float | str, test: float | str | None
) -> Encoded:
    found = recognise(table(rows), DataConfig())
    return encode(split(table(rows), validation, test, found), found, tokenizer)


def ids(rows: tuple[Row, ...]) -> set[bytes]:
    return {row.input_ids.tobytes() for row in rows}


def test_rows_that_the_model_cannot_tell_from_trained_ones_are_left_out_and_counted(
    bert_tokenizer: Any,
) -> None:
    data = drawn(labelled(0, 200), bert_tokenizer, 0.2, 0.2)
    sides = [ids(rows) for rows in data.splits.values()]
    assert sum(map(len, sides)) == len(set[bytes]().union(*sides))
    left_out = {name: report.same for name, report in data.report.items()}
    assert left_out["train"] == 0 and left_out["validation"] > 0 and left_out["test"] > 0
    assert sum(report.rows + report.same for report in data.report.values()) == 200
    assert (
        f"{left_out['test']} test rows are token for token the same as rows of an earlier split, and are"
        " left out" in data.notes
    )
    assert data.duplicates == 0


def test_rows_of_files_stay_and_are_counted(bert_tokenizer: Any, tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in labelled(0, 6)[1::2]))
    data = drawn(labelled(0, 120)[::2], bert_tokenizer, 0.1, str(file))
    assert (len(data.test), data.repeated["test"]) == (3, 3)
    assert all(report.same == 0 for report in data.report.values())


def row(*values: int) -> Row:
    return Row(np.array(values, np.int32), np.array(values, np.int32))


def test_what_a_cut_makes_the_same_is_left_out_too() -> None:
    rows = {
        "train": (row(1, 2, 3, 4),),
        "validation": (row(1, 2, 3, 5), row(1, 3, 3, 3)),
        "confirm": (),
        "test": (),
    }
    assert [
        len(each)
        for each in (
            Encoded(**rows, task="causal_lm", format="messages", report={}).cut(4).splits.values()
        )
    ] == [
        1,
        2,
        0,
        0,
    ]
    cut = Encoded(**rows, task="causal_lm", format="messages").cut(3)
    assert [each.input_ids.tolist() for each in cut.validation] == [[1, 3, 3]]


def test_nothing_left_is_an_error_that_says_so() -> None:
    rows = {"train": (row(1, 2),), "validation": (row(1, 2),), "confirm": (), "test": ()}
    with pytest.raises(
        DataError, match="to the model, every validation row is the same as a row of train"
    ) as caught:
        told_apart(rows, "causal_lm", frozenset())
    assert caught.value.exit_code == 2
    kept, repeated = told_apart(rows, "causal_lm", frozenset({"validation", "confirm"}))
    assert len(kept["validation"]) == 1 and repeated == {"validation": 1}


def test_confirm_is_compared_with_the_validation_rows_that_it_was_drawn_with() -> None:
    rows = {
        "train": (row(9),),
        "validation": (row(1), row(2)),
        "confirm": (row(1), row(3), row(9)),
        "test": (row(2),),
    }
    kept, repeated = told_apart(rows, "causal_lm", frozenset({"validation", "confirm"}))
    assert [each.input_ids.tolist() for each in kept["confirm"]] == [[3], [9]]
    assert repeated == {"confirm": 1, "test": 1}
