"""CSV and TSV as spreadsheets, scripts and hands write them."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloom.data.load import load_table
from loraloom.data.table import Table
from loraloom.errors import DataError


def read(folder: Path, name: str, text: str | bytes) -> Table:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_table(str(path))


def rows(table: Table) -> list[tuple[str, ...]]:
    return [tuple(row.values()) for row in table.rows]


def refusal(folder: Path, name: str, text: str) -> str:
    with pytest.raises(DataError) as caught:
        read(folder, name, text)
    return str(caught.value)


def test_a_mark_that_opens_in_a_tsv_and_closes_rows_later_is_text(tmp_path: Path) -> None:
    films = [f"film {i}\tgood" for i in range(20)]
    films[3], films[15] = '"we laughed\tgood', 'and left"\tbad'
    table = read(tmp_path, "d.tsv", "\n".join(["text\tlabel", *films]))
    assert len(table) == 20
    assert rows(table)[3] == ('"we laughed', "good")
    assert [note for note in table.notes if "read as text in 1 row (first in line 5)" in note]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ('"a ""great"" film"\tgood', 'a "great" film'),
        ('"Great" film\tgood', '"Great" film'),
        ('"Great" and "grand"\tgood', '"Great" and "grand"'),
        ('a 5" disk\tgood', 'a 5" disk'),
        ('"a\ttab"\tgood', "a\ttab"),
        ('"two\nlines"\tgood', "two\nlines"),
        ('""\tgood', ""),
    ],
)
def test_quotation_marks_in_a_tsv_quote_whole_fields_only(tmp_path: Path, line: str, text: str) -> None:
    table = read(tmp_path, "d.tsv", f"text\tlabel\n{line}\nplain\tbad\n")
    assert rows(table) == [(text, "good"), ("plain", "bad")]


def test_rows_longer_than_a_line_are_kept_in_a_csv_and_told(tmp_path: Path) -> None:
    table = read(tmp_path, "d.csv", 'text,label\na,0\n"b\nc",1\n"d\n\ne\nf",0\n')
    assert rows(table) == [("a", "0"), ("b\nc", "1"), ("d\n\ne\nf", "0")]
    assert table.notes[0].endswith(
        "2 rows longer than a line (first in lines 3 to 4, the longest in lines 5 to 8)"
    )
    assert len(table.notes) == 1


def test_lines_that_a_mark_in_a_csv_made_one_row_are_named(tmp_path: Path) -> None:
    table = read(tmp_path, "d.csv", 'text,label\na,0\n"b,1\nc,0\nd",1\ne,0\n')
    assert len(table) == 3
    assert any("lines 3 to 5 became one row" in note for note in table.notes)


@pytest.mark.parametrize("name", ["d.csv", "d.tsv"])
def test_a_mark_that_is_never_closed_is_named_where_it_opens(tmp_path: Path, name: str) -> None:
    between = {"d.csv": ",", "d.tsv": "\t"}[name]
    text = f'text{between}label\na{between}0\n"b\nc"{between}"0\nd{between}1\n'
    error = refusal(tmp_path, name, text)
    assert f"{name}:4: a quotation mark opens a field here and nothing closes it" in error


@pytest.mark.parametrize(
    ("separator", "word"), [(";", "semicolon"), ("\t", "tab"), ("|", "vertical bar")]
)
def test_another_separator_is_taken_and_told(tmp_path: Path, separator: str, word: str) -> None:
    table = read(tmp_path, "d.csv", f"text{separator}label\nyes, it is{separator}0\nno{separator}1\n")
    assert rows(table) == [("yes, it is", "0"), ("no", "1")]
    assert word in table.notes[0]


def test_commas_in_a_tsv_are_taken_where_no_tab_is(tmp_path: Path) -> None:
    assert read(tmp_path, "d.tsv", "text,label\na,0\n").columns == ("text", "label")


@pytest.mark.parametrize("text", ["text\na;b\nc\n", "text|label, really\na|b,0\n", "a;b\nc\nd\n"])
def test_no_separator_is_taken_that_the_rows_do_not_have(tmp_path: Path, text: str) -> None:
    table = read(tmp_path, "d.csv", text)
    assert table.columns == tuple(name.strip() for name in text.splitlines()[0].split(","))
    assert not table.notes


def test_excel_says_its_separator_above_the_header(tmp_path: Path) -> None:
    table = read(tmp_path, "d.csv", "\ufeffsep=;\r\ntext;label\r\na;0\r\n")
    assert rows(table) == [("a", "0")]
    assert table.origin(0).endswith("d.csv:3")


def test_empty_columns_without_a_name_are_left_out_and_told(tmp_path: Path) -> None:
    table = read(tmp_path, "d.csv", "text,,label,,\na,,0,,\nb,,1\n")
    assert rows(table) == [("a", "0"), ("b", "1")]
    assert "3 columns without a name or a value" in table.notes[0]


def test_separators_at_the_end_of_rows_alone_are_told(tmp_path: Path) -> None:
    table = read(tmp_path, "d.csv", "text,label\na,0,,\nb,1\n")
    assert rows(table) == [("a", "0"), ("b", "1")]
    assert "1 row with more separators than the header" in table.notes[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("text,label,\na,0,\nb,1,why\n", ["d.csv:3", "column 3 has no name", "got: why"]),
        (",text\n0,a\n0,b\n0,c\n", ["d.csv:2", "column 1 has no name"]),
        ("text,label,label\na,0,1\n", ["d.csv:1", "repeats label"]),
        ("text,label\na,0,more\n", ["d.csv:2", "3 fields, the header has 2"]),
        ("text,label,,\na\n", ["d.csv:2", "1 fields, the header has 4"]),
    ],
)
def test_columns_that_are_not_clear_are_refused(tmp_path: Path, text: str, words: list[str]) -> None:
    error = refusal(tmp_path, "d.csv", text)
    assert all(word in error for word in words), error


@pytest.mark.parametrize("name", ["", "Unnamed: 0"])
def test_the_index_of_pandas_is_left_out_and_told(tmp_path: Path, name: str) -> None:
    table = read(tmp_path, "d.csv", f"{name},text,label\n0,a,x\n1,b,y\n5,c,x\n")
    assert rows(table) == [("a", "x"), ("b", "y"), ("c", "x")]
    assert "index" in table.notes[0]


def test_a_header_that_comes_again_is_no_row(tmp_path: Path) -> None:
    table = read(tmp_path, "d.csv", "text,label\na,0\ntext,label\nb,1\n")
    assert rows(table) == [("a", "0"), ("b", "1")]
    assert "the header appears 2 times" in table.notes[0]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_line_ending_is_read(tmp_path: Path, end: str) -> None:
    table = read(tmp_path, "d.csv", end.join(["", ",,", "text,label", "", "a,0", '"b",1', ""]))
    assert rows(table) == [("a", "0"), ("b", "1")]
    assert table.origin(1).endswith(":6")


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"))


@pytest.mark.parametrize("separator", [",", ";", "|", "\t"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@given(values=st.lists(st.tuples(texts, texts, texts), min_size=1, max_size=6))
def test_whatever_is_written_comes_back(
    tmp_path_factory: pytest.TempPathFactory, separator: str, quoting: int, values: list[tuple[str, ...]]
) -> None:
    if separator == "\t":
        # A tab and a line break in one field: the lines may look like rows, and marks
        # are then text, as is said.
        values = [tuple(value.replace("\t", " ") for value in row) for row in values]
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=separator, quoting=quoting)
    writer.writerows([("first", "second", "third"), *values])
    assert rows(read(tmp_path_factory.mktemp("any"), "d.csv", out.getvalue().encode())) == values
