"""Reading what a user names: every format, and every way in which it can be broken."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloom.data.load import load_table
from loraloom.errors import DataError

ROWS = [
    {"text": 'one, "two"', "label": "a"},
    {"text": "three\nfour", "label": "b"},
    {"text": "fünf", "label": "a"},
]


def _csv(rows: list[dict[str, str]], separator: str) -> str:
    quoted = [
        separator.join('"' + value.replace('"', '""') + '"' for value in row.values()) for row in rows
    ]
    return "\n".join([separator.join(rows[0]), *quoted]) + "\n"


def _write(folder: Path, name: str) -> Path:
    path = folder / name
    if name.endswith(".parquet"):
        import pyarrow as arrow
        import pyarrow.parquet as parquet

        parquet.write_table(arrow.Table.from_pylist(ROWS), path)
        return path
    text = {
        ".jsonl": "\n".join(json.dumps(row) for row in ROWS),
        ".json": json.dumps(ROWS),
        ".csv": _csv(ROWS, ","),
        ".tsv": _csv(ROWS, "\t"),
    }[path.suffix]
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["d.jsonl", "d.json", "d.csv", "d.tsv", "d.parquet"])
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    table = load_table(str(_write(tmp_path, name)))
    assert [dict(row) for row in table.rows] == ROWS
    assert table.columns == ("text", "label")


def test_origins_name_the_line(tmp_path: Path) -> None:
    jsonl = tmp_path / "d.jsonl"
    jsonl.write_text('{"text": "a"}\n\n{"text": "b"}\n')
    table = load_table(str(jsonl))
    assert [table.origin(i) for i in range(2)] == [f"{jsonl}:1", f"{jsonl}:3"]
    # The second row of the CSV has a line break in it, so the third begins on line 5.
    csv = load_table(str(_write(tmp_path, "d.csv")))
    assert [csv.origin(i).rsplit(":", 1)[1] for i in range(3)] == ["2", "3", "5"]
    assert load_table(str(_write(tmp_path, "d.parquet"))).origin(2).endswith("d.parquet, row 3")
    assert table.take([1]).origin(0) == f"{jsonl}:3"


def test_rows_under_a_data_key_are_read(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    path.write_text(json.dumps({"data": ROWS, "version": 1}))
    assert len(load_table(str(path))) == 3


def test_text_is_read_by_paragraph(tmp_path: Path) -> None:
    path = tmp_path / "d.txt"
    path.write_text("one\ntwo\n\n\n  \nthree\n")
    table = load_table(str(path))
    assert [row["text"] for row in table.rows] == ["one\ntwo", "three"]
    assert [table.origin(i) for i in range(2)] == [f"{path}:1", f"{path}:6"]


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_bytes(b"\xef\xbb\xbftext\nhello\n")
    assert load_table(str(path)).columns == ("text",)


@given(st.lists(st.text(), min_size=1, max_size=8))
def test_jsonl_survives_any_text(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    path = tmp_path_factory.mktemp("any") / "d.jsonl"
    path.write_bytes("\n".join(json.dumps({"text": t}, ensure_ascii=False) for t in texts).encode())
    assert [row["text"] for row in load_table(str(path)).rows] == texts


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (
            "d.jsonl",
            b'{"text": "a"}\n{"text": \n',
            ["d.jsonl:2", "broken JSON", 'got: {"text":', "one JSON object a line"],
        ),
        ("d.jsonl", b'{"text": "a"}\n["b"]\n', ["d.jsonl:2", "not an object", 'got: ["b"]']),
        (
            "d.jsonl",
            b'{"text": "a"}\n{"text": "caf\xe9"}\n',
            ["d.jsonl:2", "not UTF-8", "0xe9", "iconv"],
        ),
        ("d.jsonl", b"\n \n", ["d.jsonl has no rows"]),
        ("d.json", b'[{"text": "a"},\n 3]', ["d.json, row 2", "not an object", "got: 3"]),
        ("d.json", b'[{"text": "a"},\n', ["d.json:2", "broken JSON", "name it .jsonl"]),
        ("d.json", b'{"text": "a"}', ["holds no list of rows", '{"data": [...]}']),
        ("d.csv", b"text,label\na,0\nb\n", ["d.csv:3", "1 fields, the header has 2", "text, label"]),
        ("d.csv", b"text,text\na,b\n", ["d.csv:1", "repeats text"]),
        ("d.csv", b'text,label\n"a"b,0\n', ["d.csv:2", "broken row"]),
        ("d.csv", b"text,label\n", ["d.csv has no rows"]),
        ("d.parquet", b"nothing of the kind", ["not a Parquet file"]),
        ("d.xyz", b"", ["ending that is not known", ".xyz", ".jsonl"]),
    ],
)
def test_broken_files_are_named_with_their_line(
    tmp_path: Path, name: str, content: bytes, words: list[str]
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_table(str(tmp_path / name))
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert caught.value.exit_code == 2


def test_a_missing_file_suggests_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"text": "a"}')
    with pytest.raises(
        DataError, match=r"trian\.jsonl does not exist[\s\S]*did you mean .*train\.jsonl\?"
    ):
        load_table(str(tmp_path / "trian.jsonl"))
    with pytest.raises(DataError, match=r"the folder .* does not exist either"):
        load_table(str(tmp_path / "nowhere" / "train.jsonl"))


def test_a_folder_is_the_sum_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}')
    (tmp_path / "b.csv").write_text("text\nb\n")
    (tmp_path / "README.txt").write_text("not data")
    table = load_table(str(tmp_path))
    assert [row["text"] for row in table.rows] == ["a", "b"]
    assert table.origin(1) == f"{tmp_path / 'b.csv'}:2"


def test_a_folder_with_split_names_gives_only_the_split_asked(tmp_path: Path) -> None:
    for name in ("train-00000", "validate", "test"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"text": name}))
    assert [row["text"] for row in load_table(str(tmp_path)).rows] == ["train-00000"]
    assert [row["text"] for row in load_table(str(tmp_path), split="validation").rows] == ["validate"]
    (tmp_path / "test.jsonl").unlink()
    with pytest.raises(DataError, match=r"has no test file[\s\S]*train-00000\.jsonl"):
        load_table(str(tmp_path), split="test")


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no data files"):
        load_table(str(tmp_path))


def test_max_rows_is_a_seeded_sample_in_order(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text("\n".join(json.dumps({"text": str(i)}) for i in range(100)))
    few, again, other = (load_table(str(path), max_rows=10, seed=seed) for seed in (1, 1, 2))
    numbers = [int(row["text"]) for row in few.rows]
    assert few == again
    assert few != other
    assert len(numbers) == 10
    assert numbers == sorted(numbers)
    assert few.origin(0) == f"{path}:{numbers[0] + 1}"
    assert len(load_table(str(path), max_rows=1000)) == 100
    with pytest.raises(DataError, match="max_rows` is 0"):
        load_table(str(path), max_rows=0)


def test_a_hub_name_without_the_library_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"no file or folder here[\s\S]*pip install loraloom\[hub\]"):
        load_table("someone/something")


@pytest.mark.parametrize(
    ("source", "call"),
    [
        ("owner/name", ("owner/name", None, "validation")),
        ("name:config", ("name", "config", "validation")),
        ("name:test", ("name", None, "test")),
        ("name:train[:100]", ("name", None, "train[:100]")),
        ("name:config:train[5:]", ("name", "config", "train[5:]")),
        ("owner/name:config:part", ("owner/name", "config", "part")),
    ],
)
def test_hub_names_are_taken_apart(
    monkeypatch: pytest.MonkeyPatch, source: str, call: tuple[str, str | None, str]
) -> None:
    calls: list[tuple[str, str | None, str]] = []

    def load_dataset(name: str, config: str | None, *, split: str) -> list[dict[str, str]]:
        calls.append((name, config, split))
        return [{"text": "a"}]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    table = load_table(source, split="validation")
    assert calls == [call]
    assert table.origin(0) == f"{source}, row 1"


def test_a_hub_failure_is_told_in_its_first_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such data set\nlong story")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(DataError) as caught:
        load_table("owner/name")
    assert "got: no such data set\n" in str(caught.value)
    assert "long story" not in str(caught.value)


def rows_of(path: Path, *texts: str, **more: str) -> str:
    path.write_text("".join(json.dumps({"text": text, **more}) + "\n" for text in texts))
    return str(path)


def test_several_sources_are_read_in_order_and_each_row_keeps_its_origin(tmp_path: Path) -> None:
    second, first = rows_of(tmp_path / "b.jsonl", "b", "c"), rows_of(tmp_path / "a.jsonl", "a")
    table = load_table([second, first])
    assert [row["text"] for row in table.rows] == ["b", "c", "a"]
    assert [table.origin(i) for i in range(3)] == [f"{second}:1", f"{second}:2", f"{first}:1"]
    assert table.source == f"{second}, {first}"
    assert not table.notes
    assert len(load_table([second, first], max_rows=2)) == 2


def test_a_pattern_stands_for_the_files_that_match_it(tmp_path: Path) -> None:
    for name in ("part-2", "part-1", "other"):
        rows_of(tmp_path / f"{name}.jsonl", name)
    assert [row["text"] for row in load_table(str(tmp_path / "part-*.jsonl")).rows] == [
        "part-1",
        "part-2",
    ]
    assert len(load_table(str(tmp_path / "**" / "*.jsonl"))) == 3
    with pytest.raises(DataError, match=r"no file matches .*part-\*\.csv"):
        load_table(str(tmp_path / "part-*.csv"))
    odd = rows_of(tmp_path / "part-[1].jsonl", "odd")
    assert [row["text"] for row in load_table(odd).rows] == ["odd"]


def test_a_source_that_is_named_again_is_read_once_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows_of(tmp_path / "a.jsonl", "a")
    rows_of(tmp_path / "b.jsonl", "b")
    table = load_table(["a.jsonl", "*.jsonl", "./b.jsonl"])
    assert [row["text"] for row in table.rows] == ["a", "b"]
    assert table.notes == ("a.jsonl, ./b.jsonl is named more than once, and read once",)


def test_columns_that_not_all_sources_have_are_named(tmp_path: Path) -> None:
    first, second = (
        rows_of(tmp_path / "a.jsonl", "a", label="x"),
        rows_of(tmp_path / "b.jsonl", "b", source="web"),
    )
    assert load_table([first, second]).notes == (
        f"the data do not have the same columns: `label` is not in {second}; `source` is not in {first}",
    )


def test_a_note_that_many_files_have_is_told_once(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.csv").write_text("text;label\nx;y\n")
    (note,) = load_table(str(tmp_path)).notes
    assert "a.csv" in note and "semicolon" in note and "(so in 3 files)" in note


def test_no_source_at_all_is_refused() -> None:
    with pytest.raises(DataError, match="list of data is empty"):
        load_table([])
