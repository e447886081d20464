"""Adapter folders and model folders that were damaged, or written to do damage."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import fuzz_folders
import pytest
import transformers as tf
from fuzz_doors import Tools, read_adapter, read_model
from fuzz_judge import few, judge, many
from fuzz_texts import garbled
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model

from loraloom.lora.base import share_copy

MODEL_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
damaged = st.sampled_from(("config.json", "config.json", *MODEL_FILES))


@pytest.fixture(scope="module")
def base(tools: Tools) -> Any:
    return tf.AutoModelForCausalLM.from_pretrained(tools.model_folder)


@pytest.fixture(scope="module")
def adapter(base: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter") / "sound"
    config = LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=["q_proj", "v_proj"],
        rank_pattern={"v_proj": 2},
        task_type="CAUSAL_LM",
    )
    get_peft_model(share_copy(base), config).save_pretrained(folder)
    return folder


def answered_adapter(adapter: Path, base: Any, data: st.DataObject) -> None:
    folder = adapter.with_name("tried")
    folder.mkdir(exist_ok=True)
    config = json.loads((adapter / "adapter_config.json").read_text())
    weights = (adapter / "adapter_model.safetensors").read_bytes()
    (folder / "adapter_config.json").write_bytes(
        data.draw(fuzz_folders.edited(config, fuzz_folders.ODD_FIELDS))
    )
    (folder / "adapter_model.safetensors").write_bytes(data.draw(fuzz_folders.weights(weights)))
    judge(lambda: read_adapter(folder, share_copy(base)), "tried")


def answered_model(tools: Tools, data: st.DataObject) -> None:
    folder = tools.model_folder.with_name("tried")
    shutil.copytree(tools.model_folder, folder, dirs_exist_ok=True)
    name = data.draw(damaged)
    content = (folder / name).read_bytes()
    if name == "config.json":
        content = data.draw(fuzz_folders.edited(json.loads(content), fuzz_folders.ODD_MODEL_FIELDS))
    elif name == "model.safetensors":
        content = data.draw(fuzz_folders.weights(content))
    else:
        content = data.draw(garbled(st.just(content)))
    (folder / name).write_bytes(content)
    judge(lambda: read_model(folder), "tried")


def test_the_sound_ones_are_loaded(tools: Tools, adapter: Path, base: Any) -> None:
    assert judge(lambda: read_adapter(adapter, share_copy(base))) is None
    assert judge(lambda: read_model(tools.model_folder)) is None


@few(60)
@given(data=st.data())
def test_an_adapter_is_loaded_or_refused(adapter: Path, base: Any, data: st.DataObject) -> None:
    answered_adapter(adapter, base, data)


@few(30)
@given(data=st.data())
def test_a_model_is_loaded_or_refused(tools: Tools, data: st.DataObject) -> None:
    answered_model(tools, data)


@pytest.mark.long
@pytest.mark.parametrize("part", range(10))
@many(150)
@given(data=st.data())
def test_many_adapters(part: int, adapter: Path, base: Any, data: st.DataObject) -> None:
    answered_adapter(adapter, base, data)


@pytest.mark.long
@pytest.mark.parametrize("part", range(5))
@many(100)
@given(data=st.data())
def test_many_models(part: int, tools: Tools, data: st.DataObject) -> None:
    answered_model(tools, data)
