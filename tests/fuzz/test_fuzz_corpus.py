"""Inputs that once crashed, hung or slipped through, and those like them: each is
refused, or read where its name says so.

corpus/config holds files, corpus/data too; corpus/adapter and corpus/model hold the fields in which a
sound folder's config was changed.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import transformers as tf
from fuzz_doors import Tools, read_adapter, read_config, read_data, read_model
from fuzz_judge import judge
from peft import LoraConfig, get_peft_model

CORPUS = Path(__file__).with_name("corpus")


def kept(kind: str) -> list[Any]:
    return [pytest.param(path, id=path.stem) for path in sorted((CORPUS / kind).iterdir())]


def settle(path: Path, refused: bool) -> None:
    assert refused != path.name.startswith("read-"), "refused" if refused else "answered"


@pytest.mark.parametrize("path", kept("config"))
def test_a_kept_config_is_read_or_refused(path: Path) -> None:
    settle(path, judge(lambda: read_config(path), path.name) is not None)


@pytest.mark.parametrize("path", kept("data"))
def test_kept_data_is_read_or_refused(path: Path, tools: Tools) -> None:
    config = read_config(sets=["data.validation=0.25"])
    settle(path, judge(lambda: read_data(path, config, tools, chat=True), path.name) is not None)


@pytest.mark.parametrize("path", kept("adapter"))
def test_a_kept_adapter_is_read_or_refused(path: Path, tools: Tools, tmp_path: Path) -> None:
    base = tf.AutoModelForCausalLM.from_pretrained(tools.model_folder)
    adapter = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    adapter.save_pretrained(tmp_path)
    change(tmp_path / "adapter_config.json", path)
    settle(path, judge(lambda: read_adapter(tmp_path, adapter.unload()), tmp_path.name) is not None)


@pytest.mark.parametrize("path", kept("model"))
def test_a_kept_model_is_read_or_refused(path: Path, tools: Tools, tmp_path: Path) -> None:
    folder = tmp_path / "tried"
    shutil.copytree(tools.model_folder, folder)
    change(folder / "config.json", path)
    settle(path, judge(lambda: read_model(folder), "tried") is not None)


def change(config: Path, fields: Path) -> None:
    config.write_text(json.dumps(json.loads(config.read_text()) | json.loads(fields.read_text())))


def test_rows_without_a_label_are_left_out_and_counted(tools: Tools) -> None:
    path = CORPUS / "data" / "read-gaps-in-the-labels.jsonl"
    encoded = read_data(path, read_config(sets=["data.validation=null"]), tools, chat=False)
    assert encoded.label_names == ("0", "1")
    assert (encoded.report["train"].rows, encoded.report["train"].dropped) == (8, 16)


def test_brackets_without_end_are_told_with_their_line() -> None:
    path = CORPUS / "config" / "brackets-without-end.yaml"
    error = judge(lambda: read_config(path), f"{path}:1")
    assert "more than 60 brackets within each other" in str(error)
