"""The demo's data: real, clean, balanced, and without a leak between splits."""

from __future__ import annotations

import ast
import importlib.util
import json
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "stdlib_docstrings.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("stdlib_docstrings", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def library(example: ModuleType) -> list[Any]:
    """The library's docstrings, parsed once for all tests."""
    return list(example.library_docstrings())


@pytest.fixture(scope="module")
def written(
    example: ModuleType, library: list[Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, int]]:
    folder = tmp_path_factory.mktemp("docstrings") / "new"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(example, "library_docstrings", lambda: library)
        return folder, example.write(folder)


def read(folder: Path, split: str) -> list[dict[str, str]]:
    return [
        json.loads(line) for line in (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def test_there_is_enough_of_every_class_in_every_split(written: tuple[Path, dict[str, int]]) -> None:
    folder, counts = written
    labels = {split: Counter(row["label"] for row in read(folder, split)) for split in counts}
    assert list(counts) == ["train", "validation", "test"]
    assert counts == {split: sum(found.values()) for split, found in labels.items()}
    assert counts["train"] >= 800
    assert counts["validation"] == counts["test"] >= 300
    assert 8 <= len(labels["train"]) <= 12
    assert labels["train"].keys() == labels["validation"].keys() == labels["test"].keys()
    assert max(labels["train"].values()) <= 3 * min(labels["train"].values())


def test_no_function_and_no_text_stands_twice(written: tuple[Path, dict[str, int]]) -> None:
    folder, counts = written
    rows = [row for split in counts for row in read(folder, split)]
    assert len({row["name"] for row in rows}) == len(rows)
    assert len({row["text"].casefold() for row in rows}) == len(rows)


def test_texts_do_not_name_their_package(written: tuple[Path, dict[str, int]]) -> None:
    folder, counts = written
    rows = [row for split in counts for row in read(folder, split)]
    labels = {row["label"] for row in rows}
    assert not [row for row in rows if any(label in row["text"].casefold() for label in labels)]
    assert max(len(row["text"].split()) for row in rows) <= 60
    assert all(row["name"].split(".")[0] == row["label"] for row in rows)


def test_the_same_seed_writes_the_same_bytes(
    example: ModuleType,
    library: list[Any],
    written: tuple[Path, dict[str, int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, counts = written
    monkeypatch.setattr(example, "library_docstrings", lambda: library)
    assert example.write(tmp_path / "again") == counts
    assert all(
        (tmp_path / "again" / f"{split}.jsonl").read_bytes() == (folder / f"{split}.jsonl").read_bytes()
        for split in counts
    )
    example.write(tmp_path / "other", seed=1)
    assert (tmp_path / "other" / "test.jsonl").read_bytes() != (folder / "test.jsonl").read_bytes()


def test_docstrings_are_found_however_deep(example: ModuleType) -> None:
    source = """
'M'
if True:
    class C:
        'C'
        async def f(self):
            'F'
            def g(): 'G'
def bare(): pass
"""
    found = dict(example.docstrings_of(ast.parse(source), "m"))
    assert found == {"m": "M", "m.C": "C", "m.C.f": "F", "m.C.f.g": "G"}


def test_shared_texts_go_and_repeats_count_once(example: ModuleType) -> None:
    rows = [
        ("a", "a.x", "Same."),
        ("b", "b.x", "same."),
        ("a", "a.y", "One."),
        ("a", "a.z", "one."),
        ("a", "a.y", "Two."),
    ]
    assert [row.name for row in example.distinct(example.Docstring(*row) for row in rows)] == ["a.y"]


def test_a_library_without_docstrings_is_told(
    example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example, "library_docstrings", lambda: iter(()))
    with pytest.raises(RuntimeError, match="too few docstrings"):
        example.write(tmp_path)


def test_a_call_without_a_folder_shows_the_usage(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["stdlib_docstrings.py"])
    assert example.main() == 2
    assert "OUT" in capsys.readouterr().err
