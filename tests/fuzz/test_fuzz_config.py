"""Config files, `--set` and names, as no one should write them."""

from __future__ import annotations

from pathlib import Path

import fuzz_configs
import pytest
from fuzz_doors import make_run_folder, read_config
from fuzz_judge import few, judge, many
from fuzz_texts import texts
from hypothesis import given
from hypothesis import strategies as st

assignments = st.lists(fuzz_configs.assignments, min_size=1, max_size=3)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("config") / "tune.yaml"


def answered_file(place: Path, content: bytes) -> None:
    place.write_bytes(content)
    judge(lambda: read_config(place), "tune.yaml")


def answered_sets(sets: list[str]) -> None:
    judge(lambda: read_config(sets=sets))


def one_folder_or_none(place: Path, name: str) -> None:
    """No name leads out of the folder of runs, and a refused one leaves nothing behind."""
    root = place.parent / "runs"
    before = sorted(place.parent.rglob("*"))
    made: list[Path] = []
    error = judge(lambda: made.append(make_run_folder(root, name)))
    if error is None:
        assert made[0].parent == root and made[0].is_dir()
        made[0].rmdir()
    root.rmdir() if root.is_dir() else None
    assert sorted(place.parent.rglob("*")) == before


@few(120)
@given(content=fuzz_configs.files)
def test_a_config_file_is_read_or_refused(place: Path, content: bytes) -> None:
    answered_file(place, content)


@few(150)
@given(sets=assignments)
def test_set_is_read_or_refused(sets: list[str]) -> None:
    answered_sets(sets)


@few(150)
@given(name=texts)
def test_a_name_is_one_folder_or_none(place: Path, name: str) -> None:
    one_folder_or_none(place, name)


@pytest.mark.long
@pytest.mark.parametrize("part", range(8))
@many(500)
@given(content=fuzz_configs.files)
def test_many_config_files(part: int, place: Path, content: bytes) -> None:
    answered_file(place, content)


@pytest.mark.long
@pytest.mark.parametrize("part", range(9))
@many(1000)
@given(sets=assignments)
def test_many_set_options(part: int, sets: list[str]) -> None:
    answered_sets(sets)


@pytest.mark.long
@pytest.mark.parametrize("part", range(2))
@many(1000)
@given(name=texts)
def test_many_names(part: int, place: Path, name: str) -> None:
    one_folder_or_none(place, name)
