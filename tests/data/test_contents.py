"""What stands in a file before it is CSV or JSON: bytes, packed or not, in one encoding or another."""

from __future__ import annotations

import bz2
import gzip
import lzma
import subprocess
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloom.data.contents import text_of
from loraloom.data.load import load_table
from loraloom.errors import DataError


def zstd(content: bytes) -> bytes:
    return pyarrow.Codec("zstd").compress(content, asbytes=True)


PACKERS: dict[str, Any] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstd,
}
ROW = '{"text": "fünf"}\n'.encode()


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_table(str(path))
    return str(caught.value)


@pytest.mark.parametrize("ending", PACKERS)
@pytest.mark.parametrize("name", ["d.jsonl", "d.csv"])
def test_packed_files_are_read(tmp_path: Path, ending: str, name: str) -> None:
    content = {"d.jsonl": ROW, "d.csv": "text\nfünf\n".encode()}[name]
    path = tmp_path / (name + ending)
    path.write_bytes(PACKERS[ending](content))
    table = load_table(str(path))
    assert [dict(row) for row in table.rows] == [{"text": "fünf"}]
    assert table.origin(0) == f"{path}:{1 if name == 'd.jsonl' else 2}"


def test_what_a_file_is_its_bytes_say_and_not_its_name(tmp_path: Path) -> None:
    unpacked, packed = tmp_path / "a.jsonl.gz", tmp_path / "b.jsonl"
    unpacked.write_bytes(ROW)
    packed.write_bytes(gzip.compress(ROW))
    assert load_table(str(unpacked)).rows == load_table(str(packed)).rows


@pytest.mark.parametrize("ending", PACKERS)
def test_parts_packed_one_after_the_other_are_all_read(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"d.jsonl{ending}"
    path.write_bytes(PACKERS[ending](ROW) + PACKERS[ending](ROW))
    assert len(load_table(str(path))) == 2


@pytest.mark.parametrize("ending", PACKERS)
@pytest.mark.parametrize("end", [-3, 20])
def test_a_packed_file_that_broke_off_is_refused(tmp_path: Path, ending: str, end: int) -> None:
    path = tmp_path / f"d.jsonl{ending}"
    path.write_bytes(PACKERS[ending](b"".join(b'{"text": "%d"}\n' % i for i in range(5000)))[:end])
    assert "cannot be unpacked" in refusal(path)


@pytest.mark.parametrize("ending", PACKERS)
def test_a_file_that_unpacks_without_end_is_refused(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loraloom.data.contents._FREE_BYTES", 2**20)
    path = tmp_path / f"d.jsonl{ending}"
    path.write_bytes(PACKERS[ending](b" " * 2**25))
    assert "unpacks to more than" in refusal(path)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0\ufeff"), min_size=1))
def test_any_text_comes_back_in_every_encoding_that_begins_with_its_mark(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.mktemp("any") / "d.txt"
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
        path.write_bytes(text.encode(encoding))
        assert text_of(path) == text
    path.write_bytes(b"\xfe\xff" + text.encode("utf-16-be"))
    assert text_of(path) == text


TEXT = "text,label\nIt’s a café,good\nplain words only,bad\n"
CHINESE = "text,label\n这部电影很好看,好\n非常糟糕的电影,坏\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            TEXT.encode("cp1252"),
            ["d.csv:2", "byte 0x92", "iconv -f WINDOWS-1252 -t UTF-8 d.csv > utf8.csv"],
        ),
        (TEXT.replace("’", "'").encode("latin-1"), ["d.csv:2", "byte 0xe9", "iconv -f ISO-8859-1"]),
        (CHINESE.encode("gb18030"), ["d.csv:2", "GB18030"]),
        (TEXT.encode("utf-16-le"), ["d.csv:1", "NUL", "iconv -f UTF-16LE"]),
        (TEXT.encode("utf-16-be"), ["d.csv:1", "NUL", "iconv -f UTF-16BE"]),
        (
            CHINESE.encode() + b"caf\xe9,good\n",
            ["d.csv:4", "byte 0xe9", "repair or remove this line alone"],
        ),
        (CHINESE.encode()[:-2], ["d.csv:3", "ends within a character"]),
        (b"\xff\xfet", ["begins as UTF-16"]),
        (TEXT.encode() + b"\0" * 100, ["d.csv:4", "NUL", "tr -d '\\000' < d.csv"]),
        (b"PK\x03\x04 and so on", ["spreadsheet", "save the sheet as CSV"]),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", ["git lfs pull"]),
        (b"\n<!DOCTYPE html>\n<html></html>", ["a web page", "resolve"]),
        (b"PAR1", ["rename it to end in .parquet"]),
    ],
)
def test_other_contents_are_named_for_what_they_are(
    tmp_path: Path, content: bytes, words: list[str]
) -> None:
    path = tmp_path / "d.csv"
    path.write_bytes(content)
    error = refusal(path)
    assert all(word in error for word in words), error


@pytest.mark.parametrize("name", ["d.csv", "d.jsonl", "d.json", "d.txt", "d.csv.gz"])
@pytest.mark.parametrize(
    "content", [b"", b"\n", b"\xef\xbb\xbf", b"\xff\xfe", gzip.compress(b"", mtime=0)]
)
def test_an_empty_file_is_told_as_such(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert "has no rows" in refusal(tmp_path / name)


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_the_command_that_a_message_gives_makes_a_file_that_is_read(
    tmp_path: Path, encoding: str, ending: str
) -> None:
    text = TEXT.replace("’", "'") if encoding == "latin-1" else TEXT
    path = tmp_path / f"d.csv{ending}"
    content = text.encode(encoding)
    path.write_bytes(gzip.compress(content) if ending else content)
    command = refusal(path).rpartition("convert it: ")[2]
    subprocess.run(command, shell=True, check=True, cwd=tmp_path)
    assert "\n".join(load_table(str(tmp_path / "utf8.csv")).rows[0].values()) == "\n".join(
        text.splitlines()[1].split(",")
    )
