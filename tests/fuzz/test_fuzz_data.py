"""Data files of every format, broken in every way that we can think of."""

from __future__ import annotations

from pathlib import Path

import fuzz_data
import pytest
from fuzz_doors import Tools, read_config, read_data
from fuzz_judge import few, judge, many
from hypothesis import given
from hypothesis import strategies as st


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data") / "rows"


def answered(
    place: Path, tools: Tools, file: fuzz_data.DataFile, sets: list[str], *, chat: bool
) -> None:
    path = place.with_suffix(file.suffix)
    path.write_bytes(file.content)
    config = read_config(sets=sets)
    judge(lambda: read_data(path, config, tools, chat=chat))


@few(150)
@given(file=fuzz_data.files, sets=fuzz_data.requests, chat=st.booleans())
def test_a_data_file_is_read_or_refused(
    place: Path, tools: Tools, file: fuzz_data.DataFile, sets: list[str], chat: bool
) -> None:
    answered(place, tools, file, sets, chat=chat)


@pytest.mark.long
@pytest.mark.parametrize("part", range(16))
@many(250)
@given(file=fuzz_data.files, sets=fuzz_data.requests, chat=st.booleans())
def test_many_data_files(
    part: int, place: Path, tools: Tools, file: fuzz_data.DataFile, sets: list[str], chat: bool
) -> None:
    answered(place, tools, file, sets, chat=chat)
