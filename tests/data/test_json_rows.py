"""JSON in every shape that tools write it in, under its own name or another's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from loraloom.data.load import load_table
from loraloom.data.table import Table
from loraloom.errors import DataError

ROWS: list[dict[str, Any]] = [
    {"text": "a", "label": 0},
    {"text": "b\nc", "label": 1},
    {"text": "d", "label": 0},
]
COLUMNS = {"text": ["a", "b\nc", "d"], "label": [0, 1, 0]}
LINES = "\n".join(json.dumps(row) for row in ROWS)


def read(folder: Path, name: str, text: str, split: str = "train") -> Table:
    path = folder / name
    path.write_text(text, encoding="utf-8", newline="")
    return load_table(str(path), split=split)


@pytest.mark.parametrize(
    ("document", "note"),
    [
        (ROWS, None),
        ({"data": ROWS}, None),
        (
            {"data": ROWS, "version": 1, "notes": [{"a": 1}]},
            "the rows are those of `data`; not used: version, notes",
        ),
        ({"examples": ROWS, "license": "mit"}, "the rows are those of `examples`; not used: license"),
        (
            {
                "features": [{"name": "text"}],
                "rows": [{"row_idx": i, "row": row} for i, row in enumerate(ROWS)],
            },
            "features",
        ),
        ({"train": ROWS, "test": ROWS[:1]}, "the rows are those of `train`; not used: test"),
        (COLUMNS, "the file holds columns"),
        (
            {
                name: {str(i): value for i, value in enumerate(column)}
                for name, column in COLUMNS.items()
            },
            "columns",
        ),
        ({str(i): row for i, row in enumerate(ROWS)}, "columns"),
        (
            {
                "columns": ["text", "label"],
                "index": [0, 1, 2],
                "data": [list(row.values()) for row in ROWS],
            },
            "columns",
        ),
        ({"schema": {"fields": [{"name": "text"}]}, "data": ROWS}, "schema"),
    ],
)
def test_a_document_holds_rows_in_many_ways(tmp_path: Path, document: Any, note: str | None) -> None:
    table = read(tmp_path, "d.json", json.dumps(document))
    assert [dict(row) for row in table.rows] == ROWS
    assert table.origin(1).endswith("d.json, row 2")
    assert len(table.notes) == (note is not None)
    assert note is None or note in table.notes[0]


def test_a_document_with_splits_gives_the_one_asked(tmp_path: Path) -> None:
    table = read(tmp_path, "d.json", json.dumps({"train": ROWS, "dev": ROWS[:1]}), split="validation")
    assert len(table) == 1
    with pytest.raises(DataError, match=r"no test list[\s\S]*got: train, dev"):
        load_table(table.source, split="test")


@pytest.mark.parametrize(
    ("name", "text", "note", "origin"),
    [
        ("d.json", LINES, "one object a line", "d.json:2"),
        ("d.jsonl", json.dumps(ROWS), "one JSON list", "d.jsonl, row 2"),
        ("d.jsonl", json.dumps(ROWS, indent=2), "one JSON list", "d.jsonl, row 2"),
        ("d.jsonl", LINES.replace("\n", "\r"), "not one a line", "d.jsonl, row 2"),
        ("d.jsonl", LINES.replace("\n", ""), "not one a line", "d.jsonl, row 2"),
        (
            "d.json",
            "\n".join(json.dumps(row, indent=1) for row in ROWS),
            "not one a line",
            "d.json, row 2",
        ),
    ],
)
def test_a_file_is_read_as_what_it_is_and_that_is_told(
    tmp_path: Path, name: str, text: str, note: str, origin: str
) -> None:
    table = read(tmp_path, name, text)
    assert [dict(row) for row in table.rows] == ROWS
    assert note in table.notes[0]
    assert table.origin(1).endswith(origin)


def test_plain_lines_have_nothing_to_tell(tmp_path: Path) -> None:
    for text in (LINES, LINES.replace("\n", "\r\n"), f"\n{LINES}\n\n", f"\ufeff{LINES}"):
        table = read(tmp_path, "d.jsonl", text)
        assert [dict(row) for row in table.rows] == ROWS
        assert not table.notes


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("d.jsonl", "['a']\n", ["d.jsonl:1", "broken JSON"]),
        ("d.jsonl", '["a"]\n["b"]\n', ["d.jsonl:1", "not an object"]),
        ("d.jsonl", "{'text': 'a'}\n", ["d.jsonl:1", "json.dumps"]),
        ("d.jsonl", '{"text": \n' + LINES, ["d.jsonl:1", "broken JSON"]),
        ("d.jsonl", LINES + "\n[1]", ["d.jsonl:4", "not an object"]),
        ("d.json", json.dumps({"a": ROWS, "b": ROWS}), ["more than one list of rows", "a, b"]),
        ("d.json", json.dumps({"text": ["a"], "label": [0, 1]}), ["holds no list of rows"]),
        ("d.json", json.dumps({"train": ROWS, "train_2": ROWS}), ["more than one train list"]),
        ("d.json", json.dumps({"data": []}), ["has no rows"]),
    ],
)
def test_what_is_not_clear_is_refused(tmp_path: Path, name: str, text: str, words: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, name, text)
    assert all(word in str(caught.value) for word in words), str(caught.value)
