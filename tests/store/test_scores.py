"""Row costs come back as they were kept, and a file that is missing or broken is done without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from loraloom.records import Score
from loraloom.store.folder import RunFolder
from loraloom.store.samples import Sample, read_samples, write_samples
from loraloom.store.scores import FILE_NAME, add_score, read_scores


def test_splits_are_kept_beside_each_other(tmp_path: Path) -> None:
    add_score(tmp_path / "t000", Score("validation", {}, (0.25, 1.5), (3.0, 4.0)), "abc")
    add_score(tmp_path / "t000", Score("confirm", {}, (1.0,)), "def")
    kept = read_scores(tmp_path / "t000")
    assert set(kept) == {"validation", "confirm"}
    assert kept["validation"].costs.tolist() == [0.25, 1.5]
    assert kept["validation"].weights.tolist() == [3.0, 4.0]
    assert (kept["validation"].rows, kept["confirm"].rows) == ("abc", "def")
    assert kept["confirm"].weights.tolist() == [1.0]


def test_a_second_score_of_a_split_replaces_the_first(tmp_path: Path) -> None:
    for cost in (1.0, 2.0):
        add_score(tmp_path, Score("test", {}, (cost,)), "abc")
    assert read_scores(tmp_path)["test"].costs.tolist() == [2.0]


def test_nothing_to_keep_makes_no_file(tmp_path: Path) -> None:
    add_score(tmp_path / "t000", Score("test", {"loss": 1.0}), "abc")
    assert not (tmp_path / "t000").exists()
    assert read_scores(tmp_path / "t000") == {}


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 torn"])
def test_a_broken_file_is_done_without(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    assert read_scores(tmp_path) == {}


def test_no_pickle_is_read(tmp_path: Path) -> None:
    np.savez(tmp_path / FILE_NAME, **{"test.costs": np.array([{"an": "object"}], dtype=object)})
    assert read_scores(tmp_path) == {}


def test_ten_thousand_rows_take_little_room(tmp_path: Path) -> None:
    costs = np.random.default_rng(0).gamma(2.0, size=10_000)
    add_score(tmp_path, Score("validation", {}, tuple(costs), tuple(np.full(10_000, 30.0))), "abc")
    assert (tmp_path / FILE_NAME).stat().st_size < 50_000


def test_samples_are_read_as_they_were_written(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "first")
    assert read_samples(folder) == []
    samples = [Sample("a", "b", "c", "\ud800 broken"), Sample("", "", "", "")]
    write_samples(folder, samples)
    assert read_samples(folder) == samples
