"""Parquet and Arrow files, with what their writers say of the columns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloom.data.load import load_table
from loraloom.errors import DataError


def write(path: Path, table: Any) -> str:
    if path.suffix == ".parquet":
        parquet.write_table(table, path)
    else:
        kind = arrow.ipc.new_file if path.stem == "file" else arrow.ipc.new_stream
        with arrow.OSFile(str(path), "wb") as sink, kind(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    return str(path)


FILES = ["d.parquet", "stream.arrow", "file.arrow"]
texts = st.text(st.characters(codec="utf-8"))


@pytest.mark.parametrize("name", FILES)
@given(values=st.lists(st.tuples(texts, st.integers(-5, 5) | st.none()), min_size=1, max_size=6))
def test_whatever_is_written_comes_back(
    tmp_path_factory: pytest.TempPathFactory, name: str, values: list[tuple[str, int | None]]
) -> None:
    rows = [{"text": text, "label": label} for text, label in values]
    table = load_table(write(tmp_path_factory.mktemp("any") / name, arrow.Table.from_pylist(rows)))
    assert [dict(row) for row in table.rows] == rows
    assert not table.notes
    assert table.origin(0).endswith(f"{name}, row 1")


def classes(table: Any, names: Any) -> Any:
    features = {
        "label": {"names": names, "_type": "ClassLabel"},
        "text": {"dtype": "string", "_type": "Value"},
    }
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


@pytest.mark.parametrize("name", FILES)
def test_names_of_classes_stand_beside_their_numbers(tmp_path: Path, name: str) -> None:
    table = arrow.table({"text": ["a", "b", "c", "d"], "label": [1, 0, -1, None]})
    found = load_table(write(tmp_path / name, classes(table, ["bad", "good"])))
    assert [(row["label"], row["label_name"]) for row in found.rows] == [
        (1, "good"),
        (0, "bad"),
        (-1, None),
        (None, None),
    ]
    assert "the classes of `label`: 0 bad, 1 good" in found.notes[0]


@pytest.mark.parametrize("names", [["bad"], "bad good", [1, 2], [], None])
def test_names_that_do_not_fit_the_numbers_are_not_used(tmp_path: Path, names: Any) -> None:
    table = arrow.table({"text": ["a", "b"], "label": [1, 0]})
    assert load_table(write(tmp_path / "d.parquet", classes(table, names))).columns == ("text", "label")


def test_the_index_of_pandas_is_left_out_and_told(tmp_path: Path) -> None:
    table = arrow.table({"text": ["a", "b"], "__index_level_0__": [4, 7]})
    found = load_table(write(tmp_path / "d.parquet", table))
    assert [dict(row) for row in found.rows] == [{"text": "a"}, {"text": "b"}]
    assert "__index_level_0__" in found.notes[0]


@pytest.mark.parametrize("name", FILES)
def test_columns_of_the_same_name_are_refused(tmp_path: Path, name: str) -> None:
    table = arrow.Table.from_arrays([arrow.array(["a"]), arrow.array(["b"])], names=["text", "text"])
    with pytest.raises(DataError, match="columns of the same name"):
        load_table(write(tmp_path / name, table))


@pytest.mark.parametrize(
    "content", [b"", b"ARROW1", b"nothing of the kind", b"\xff\xff\xff\xff\x10\x00\x00\x00"]
)
def test_what_is_no_arrow_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "d.arrow").write_bytes(content)
    with pytest.raises(DataError, match=r"is not an Arrow file that can be read|has no rows"):
        load_table(str(tmp_path / "d.arrow"))


def test_arrow_that_broke_off_is_refused(tmp_path: Path) -> None:
    path = Path(write(tmp_path / "stream.arrow", arrow.table({"text": ["a"] * 1000})))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match="is not an Arrow file that can be read"):
        load_table(str(path))
