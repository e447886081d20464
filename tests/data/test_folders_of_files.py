"""Folders as the hub lays them out, as `datasets` saves them, and as people fill them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest

from loraloom.data.load import load_table
from loraloom.errors import DataError


def put(path: Path, *texts: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"text": text} for text in texts]
    if path.suffix == ".parquet":
        parquet.write_table(arrow.Table.from_pylist(rows), path)
    elif path.suffix == ".arrow":
        table = arrow.Table.from_pylist(rows)
        with arrow.OSFile(str(path), "wb") as sink, arrow.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def texts(source: Path | str, split: str = "train") -> list[str]:
    return [row["text"] for row in load_table(str(source), split=split).rows]


def refusal(source: Path | str, split: str = "train") -> str:
    with pytest.raises(DataError) as caught:
        load_table(str(source), split=split)
    return str(caught.value)


def test_a_data_set_of_the_hub_as_it_was_downloaded(tmp_path: Path) -> None:
    for number in (0, 1):
        put(tmp_path / f"data/train-0000{number}-of-00002.parquet", f"train {number}")
    put(tmp_path / "data/test-00000-of-00001.parquet", "test")
    put(tmp_path / ".cache/train.jsonl", "hidden")
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    (tmp_path / "dataset_infos.json").write_text("{}")
    assert texts(tmp_path) == ["train 0", "train 1"]
    assert texts(tmp_path, "test") == ["test"]
    assert "read for train, not data/test-00000-of-00001.parquet" in load_table(str(tmp_path)).notes[0]
    assert "no validation file" in refusal(tmp_path, "validation")


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train/a.jsonl", "test/a.jsonl"),
        ("my_train.jsonl", "my_test.jsonl"),
        ("squad-train-v1.jsonl", "squad-test-v1.jsonl"),
        ("en/train.jsonl", "en/test.jsonl"),
        ("test_of_taste/train.jsonl", "test_of_taste/testing.jsonl"),
    ],
)
def test_splits_are_known_by_file_and_folder(tmp_path: Path, train: str, test: str) -> None:
    put(tmp_path / train, "train")
    put(tmp_path / test, "test")
    assert (texts(tmp_path), texts(tmp_path, "test")) == (["train"], ["test"])


def test_what_lies_beneath_the_files_that_are_meant_is_not_read_but_told(tmp_path: Path) -> None:
    put(tmp_path / "rows.jsonl", "mine")
    put(tmp_path / "runs/first/samples.json", "a run's")
    assert texts(tmp_path) == ["mine"]
    assert "not runs/first/samples.json" in load_table(str(tmp_path)).notes[0]


def test_folders_without_names_of_splits_are_read_together_and_told(tmp_path: Path) -> None:
    put(tmp_path / "de/rows.jsonl", "zwei")
    put(tmp_path / "en/rows.jsonl", "two")
    assert texts(tmp_path) == ["zwei", "two"]
    assert "the files of de, en are read together" in load_table(str(tmp_path)).notes[0]
    assert texts(tmp_path / "en") == ["two"]


README = """---
license: mit
configs:
- config_name: en
  default: true
  data_files:
  - split: train
    path: "english/a-*.jsonl"
  - split: test
    path: [english/b.jsonl]
- config_name: de
  data_files: german
tags: [films]
---
# Films
configs: none
"""


def test_a_readme_says_which_files_are_which(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(README)
    put(tmp_path / "english/a-1.jsonl", "one")
    put(tmp_path / "english/a-2.jsonl", "two")
    put(tmp_path / "english/b.jsonl", "three")
    put(tmp_path / "german/train.jsonl", "vier")
    assert texts(tmp_path) == ["one", "two"]
    assert texts(tmp_path, "test") == ["three"]
    assert texts(f"{tmp_path}:de") == ["vier"]
    notes = " ".join(load_table(str(tmp_path)).notes)
    assert "config en read, not de" in notes and "train read for train, not test" in notes
    assert "no such config" in refusal(f"{tmp_path}:fr")
    assert "no validation split" in refusal(tmp_path, "validation")
    (tmp_path / "README.md").write_text(README.replace("  default: true\n", ""))
    assert "several configs" in refusal(tmp_path) and f"{tmp_path}:en" in refusal(tmp_path)


@pytest.mark.parametrize(
    "pattern", ["../other/*.jsonl", "/etc/*", "nothing-*", "https://example.org/a.jsonl", "."]
)
def test_a_readme_does_not_lead_out_of_its_folder(tmp_path: Path, pattern: str) -> None:
    put(tmp_path / "other/rows.jsonl", "secret")
    home = put(tmp_path / "home/rows.jsonl", "mine").parent
    (home / "README.md").write_text(
        f"---\nconfigs:\n- config_name: default\n  data_files: {pattern}\n---\n"
    )
    assert "none of the files" in refusal(home)


@pytest.mark.parametrize(
    "configs",
    [
        "[",
        "[" * 50_000,
        "a: [&x [*x]]",
        "- 1",
        "configs",
        "*a",
        "!!python/name:os.system",
        "- config_name: en",
    ],
)
def test_a_readme_that_says_nothing_is_passed_over(tmp_path: Path, configs: str) -> None:
    put(tmp_path / "rows.jsonl", "mine")
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{configs}\n---\n")
    assert texts(tmp_path) == ["mine"]


def save(folder: Path, *parts: str, **state: Any) -> None:
    names = [
        put(folder / f"data-{i:05}-of-{len(parts):05}.arrow", part).name for i, part in enumerate(parts)
    ]
    (folder / "dataset_info.json").write_text("{}")
    (folder / "state.json").write_text(
        json.dumps({"_data_files": [{"filename": name} for name in names]} | state)
    )


def test_what_datasets_saved_to_disk_is_read_in_its_order(tmp_path: Path) -> None:
    save(tmp_path, "a", "b", "c")
    assert texts(tmp_path) == ["a", "b", "c"]
    (tmp_path / "data-00001-of-00003.arrow").unlink()
    assert "is incomplete" in refusal(tmp_path) and "data-00001-of-00003.arrow" in refusal(tmp_path)
    save(tmp_path, "a", _indices_files=[{"filename": "indices.arrow"}])
    assert "flatten_indices" in refusal(tmp_path)


def test_of_a_saved_dict_the_split_is_read_and_the_others_are_named(tmp_path: Path) -> None:
    save(tmp_path / "train_sft", "a", "b")
    save(tmp_path / "test_sft", "c")
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train_sft", "test_sft"]}')
    assert texts(tmp_path) == ["a", "b"]
    assert texts(tmp_path, "test") == ["c"]
    assert "train_sft read for train, not test_sft" in load_table(str(tmp_path)).notes[0]
    assert "no validation split" in refusal(tmp_path, "validation")
    (tmp_path / "dataset_dict.json").write_text("[")
    assert "dataset_dict.json cannot be read" in refusal(tmp_path)
