"""The forecast of the frozen weights against what the loaded base holds, by the bytes of its tensors."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import transformers
from machines import CPU, GPU, data

from loraloom.config.asked import Config, ModelConfig
from loraloom.facts.model import ModelFacts, model_facts
from loraloom.facts.weights import BYTES
from loraloom.lora.base import load_base
from loraloom.plan.planner import Facts, make_plan
from loraloom.plan.shape import Shape
from loraloom.plan.weight_memory import coded_linears, spread_bytes, weight_bytes
from loraloom.records import Task

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "end_to_end"))
from bases import save_bert, save_llama, save_t5

from few_bits import save_gptq

SENTENCES = ["one small step", "the other way round", "a step the other way"]
WIDER = {"hidden_size": 96, "intermediate_size": 200}
MAKERS: dict[Task, Callable[[Path], Path]] = {
    "causal_lm": lambda folder: save_llama(folder, SENTENCES, **WIDER),
    "seq_cls": lambda folder: save_bert(folder, SENTENCES),
    "seq2seq_lm": lambda folder: save_t5(folder, SENTENCES),
}


def held(folder: Path, task: Task, dtype: str, quantization: str = "none") -> int:
    labels = ("no", "yes") if task == "seq_cls" else None
    base = load_base(str(folder), task, label_names=labels, dtype=dtype, quantization=quantization)
    return base.stored_bytes


def facts_of(folder: Path, task: Task) -> ModelFacts:
    return model_facts(str(folder), task=task, num_labels=2 if task == "seq_cls" else None)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("quantization", ["nf4", "int8"])
@pytest.mark.parametrize("task", MAKERS)
def test_a_base_that_is_quantised_as_it_is_read_takes_what_was_forecast(
    tmp_path: Path, task: Task, quantization: str, dtype: str
) -> None:
    pytest.importorskip("bitsandbytes", reason="needs bitsandbytes: pip install 'loraloom[quant]'")
    folder = MAKERS[task](tmp_path)
    found = weight_bytes(facts_of(folder, task), BYTES[dtype], quantization)
    assert found == held(folder, task, dtype, quantization)


@pytest.mark.parametrize(
    "bits",
    [
        {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
        {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
        {"load_in_8bit": True},
    ],
    ids=["double", "single", "int8"],
)
def test_a_folder_of_bitsandbytes_takes_what_its_headers_say(
    tmp_path: Path, bits: dict[str, Any]
) -> None:
    pytest.importorskip("bitsandbytes", reason="needs bitsandbytes: pip install 'loraloom[quant]'")
    full, coded = save_llama(tmp_path / "full", SENTENCES, **WIDER), tmp_path / "coded"
    config = transformers.BitsAndBytesConfig(**bits)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(full, quantization_config=config)
    model.save_pretrained(coded)
    transformers.AutoTokenizer.from_pretrained(full).save_pretrained(coded)
    found = facts_of(coded, "causal_lm")
    for dtype in ("float32", "bfloat16"):
        measured = held(coded, "causal_lm", dtype)
        assert weight_bytes(found, BYTES[dtype], "none") == pytest.approx(measured, rel=0.03)
    assert found.prequantized == "bitsandbytes"
    assert found.parameters == facts_of(full, "causal_lm").parameters


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_folder_of_gptq_takes_what_its_headers_say(tmp_path: Path, bits: int) -> None:
    save_gptq(tmp_path, SENTENCES, bits)
    found = facts_of(tmp_path, "causal_lm")
    for dtype in ("float32", "bfloat16"):
        assert weight_bytes(found, BYTES[dtype], "none") == held(tmp_path, "causal_lm", dtype)


def test_without_its_weights_a_quantised_folder_is_estimated_by_its_bits(tmp_path: Path) -> None:
    """What `plan` says of a model whose config.json alone is here."""
    save_llama(tmp_path, SENTENCES, hidden_size=512, intermediate_size=1024)
    full = facts_of(tmp_path, "causal_lm")
    (tmp_path / "model.safetensors").unlink()
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "awq", "bits": 4, "group_size": 64}
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = facts_of(tmp_path, "causal_lm")
    coded = sum(linear.parameters for linear in coded_linears(full))
    plain = full.parameters - coded
    assert weight_bytes(found, 2, "none") == pytest.approx(0.53 * coded + 2 * plain, rel=0.03)


def test_a_large_base_in_nf4_takes_about_half_a_byte_a_number(model: Callable[..., ModelFacts]) -> None:
    found = model("8b")
    coded = sum(linear.parameters for linear in coded_linears(found))
    in_codes = weight_bytes(found, 2, "nf4") - 2 * (found.parameters - coded)
    assert in_codes / coded == pytest.approx(0.517, rel=0.01)
    assert coded == found.parameters - 2 * 128256 * 4096 - (2 * 32 + 1) * 4096


def test_experts_that_are_one_tensor_stay_as_they_are(model: Callable[..., ModelFacts]) -> None:
    """transformers holds all experts of a layer in one tensor, which is no linear layer."""
    found = model("mixtral")
    coded = coded_linears(found)
    assert coded and not any("experts" in linear.path for linear in coded)


def test_a_processor_spreads_a_block_and_a_gpu_a_layer(model: Callable[..., ModelFacts]) -> None:
    found = model("8b")
    asked = Config(model=ModelConfig(quantization="nf4", dtype="bfloat16"))
    roomy = replace(CPU, total_bytes=80 * 2**30, free_bytes=79 * 2**30)
    for device, block in ((roomy, 2 * 2**20), (GPU, 2 * 4096 * 14336)):
        case = make_plan(asked, Facts(found, data(), device)).case
        assert spread_bytes(case, Shape(1, 64, quantization="nf4")) == 2 * block
        assert spread_bytes(case, Shape(1, 64)) == 0
