"""Rows read one after the other: the same as those of a table, and never all of them at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from loraloom.data.load import load_table
from loraloom.data.stream import stream_of
from loraloom.errors import DataError

ROWS: list[dict[str, Any]] = [{"text": f"row {i}", **({"more": i} if i == 5 else {})} for i in range(10)]


def write(path: Path, ending: str) -> str:
    path = path / f"rows.{ending}"
    lines = [json.dumps(row) for row in ROWS]
    if ending == "parquet":
        parquet.write_table(pa.Table.from_pylist(ROWS, schema=pa.schema({"text": pa.string()})), path)
    elif ending == "csv":
        path.write_text("text,n\n" + "".join(f"row {i},{i}\n" for i in range(10)))
    elif ending == "json":
        path.write_text(f"[{','.join(lines)}]")
    else:
        path.write_bytes(("\r\n\n".join(lines) + "\r\n").encode("utf-8-sig"))
    return str(path)


@pytest.mark.parametrize("ending", ["jsonl", "parquet", "csv", "json"])
def test_the_rows_are_those_of_the_table(ending: str, tmp_path: Path) -> None:
    source = write(tmp_path, ending)
    stream, table = stream_of(source), load_table(source)
    for _ in range(2):  # it is read anew each time
        tables = list(stream.tables(4))
        assert [len(part) for part in tables] == [4, 4, 2]
        assert [dict(row) for part in tables for row in part.rows] == list(map(dict, table.rows))
        assert [place for part in tables for place in part.places] == list(table.places)
    sample, count = stream.survey()
    assert (sample.columns, count) == (table.columns, len(table))
    assert (stream.source, sample.notes) == (table.source, table.notes)


def test_several_files_follow_one_another(tmp_path: Path) -> None:
    names = [write(tmp_path, ending) for ending in ("jsonl", "parquet")]
    rows = [row["text"] for part in stream_of(names).tables(7) for row in part.rows]
    assert rows == [row["text"] for row in ROWS] * 2


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"text": "x"', r"rows.jsonl:11.*broken JSON"),
        (b'{"text": "\xff"}', r"rows.jsonl:11.*not UTF-8"),
        (b'{"text": "\0"}', r"NUL"),
        (b"[1]", r"rows.jsonl:11.*not an object"),
    ],
)
def test_a_broken_line_is_named(line: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes("".join(json.dumps(row) + "\n" for row in ROWS).encode() + line + b"\n")
    with pytest.raises(DataError, match=said):
        stream_of(str(path)).survey()


def test_what_is_no_lines_is_read_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ROWS))
    sample, count = stream_of(str(path)).survey()
    assert count == len(ROWS)
    assert "one JSON list" in sample.notes[0]
    path.write_text("")
    with pytest.raises(DataError, match="has no rows"):
        stream_of(str(path))


def test_a_sample_is_that_of_the_table(tmp_path: Path) -> None:
    source = write(tmp_path, "jsonl")
    (part,) = stream_of(source, max_rows=3, seed=1).tables(9)
    assert part.rows == load_table(source, max_rows=3, seed=1).rows
