"""Adapters as they come from elsewhere: those with tokens of their own are loaded, what
is no LoRA of PEFT is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from doorway import Door, World, write_rows
from peft import IA3Config, LoraConfig, PromptTuningConfig, get_peft_model

TEXT = "the cat sleeps <new> <other>"


def saved(
    world: World, here: Path, *, longer: bool, tokenizer: bool = True, whole: Any = "auto", **more: Any
) -> tuple[Path, float]:
    """An adapter that PEFT trained a little and saved, and the loss of `TEXT` under it.

    Args:
        longer: with two more tokens.
        whole: PEFT's `save_embedding_layers`.
    """
    torch.manual_seed(0)
    read, model = (
        tf.AutoTokenizer.from_pretrained(world.llama),
        tf.AutoModelForCausalLM.from_pretrained(world.llama),
    )
    if longer:
        read.add_tokens(["<new>", "<other>"], special_tokens=True)
        model.resize_token_embeddings(len(read))
    config = LoraConfig(
        r=2, task_type="CAUSAL_LM", init_lora_weights=False, **{"target_modules": ["q_proj"], **more}
    )
    made = get_peft_model(model, config).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) / 20)
    made.save_pretrained(str(here), save_embedding_layers=whole)
    if tokenizer:
        read.save_pretrained(here)
    ids = torch.tensor([[*read(TEXT).input_ids, read.eos_token_id]])
    with torch.no_grad():
        return here, float(made(input_ids=ids, labels=ids).loss)


KINDS: dict[str, dict[str, Any]] = {
    "a longer tokenizer": {"longer": True},
    "embeddings and head trained whole": {
        "longer": True,
        "modules_to_save": ["embed_tokens", "lm_head"],
    },
    "the same at the base's size": {"longer": False, "modules_to_save": ["embed_tokens", "lm_head"]},
    "single tokens, old and new": {"longer": True, "trainable_token_indices": [5, -1]},
    "single tokens of the base": {"longer": False, "trainable_token_indices": [5, 6]},
    "LoRA on the embeddings": {"longer": False, "target_modules": ["q_proj", "embed_tokens"]},
    "embeddings saved at the base's size": {"longer": False, "whole": True},
    "no tokenizer beside it": {"longer": False, "tokenizer": False},
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_with_embeddings_is_what_peft_makes_of_it(
    kind: str, world: World, loraloom: Door, tmp_path: Path
) -> None:
    asked = dict(KINDS[kind])
    if -1 in asked.get("trainable_token_indices", ()):
        asked["trainable_token_indices"] = [5, len(tf.AutoTokenizer.from_pretrained(world.llama)) + 1]
    folder, loss = saved(world, tmp_path / "adapter", **asked)
    data = write_rows(tmp_path / "rows.jsonl", [{"text": TEXT}] * 3)
    found = loraloom("evaluate", "--adapter", folder, "--data", data, "--json")
    assert found.code == 0, found.err
    assert found.json()["metrics"]["test_loss"] == pytest.approx(loss, rel=1e-5)
    words = ("generate", "--adapter", folder, "--max-new-tokens", 3, "--json")
    prompt = "the cat <new>" if asked["longer"] else "the cat"
    beside, without = (
        loraloom(*words, "--base", prompt),
        loraloom("generate", "--model", world.llama, *words[3:], prompt),
    )
    assert beside.code == 0, beside.err
    if not asked["longer"]:
        assert beside.json()[0]["text"] == without.json()[0]["text"], (
            "the base beside it is the bare base"
        )


@pytest.mark.parametrize(
    "more", [{}, {"trainable_token_indices": True}], ids=["a tokenizer alone", "single tokens"]
)
def test_tokens_that_nothing_has_embeddings_for_are_named(
    more: dict[str, Any], world: World, loraloom: Door, tmp_path: Path
) -> None:
    first = len(tf.AutoTokenizer.from_pretrained(world.llama))
    more = {"trainable_token_indices": [first]} if more else {}
    folder, _ = saved(world, tmp_path / "adapter", longer=True, whole=False, **more)
    data = write_rows(tmp_path / "rows.jsonl", [{"text": TEXT}] * 3)
    for words in (
        ("evaluate", "--data", data),
        ("predict", "--data", data, "--out", tmp_path / "o.jsonl"),
        ("generate", TEXT),
    ):
        answer = loraloom(words[0], "--adapter", folder, *words[1:])
        assert answer.code == 2, answer.err
        assert f"the model has {first}" in answer.err and "save_embedding_layers=True" in answer.err


def test_an_adapter_of_another_size_is_told_in_whole_sentences(
    world: World, loraloom: Door, tmp_path: Path
) -> None:
    folder, _ = saved(world, tmp_path / "adapter", longer=False)
    config = tf.AutoConfig.from_pretrained(world.llama)
    config.hidden_size, config.head_dim = 64, 16
    tf.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "wider")
    tf.AutoTokenizer.from_pretrained(world.llama).save_pretrained(tmp_path / "wider")
    answer = loraloom("generate", "--model", tmp_path / "wider", "--adapter", folder, "the cat")
    assert answer.code == 2
    assert "size mismatch" in answer.err and "does not fit this model" in answer.err


# -- what is no LoRA of PEFT
# -----------------------------------------------------------------------------------------


def config_of(content: dict[str, Any]) -> Callable[[World, Path], object]:
    def make(world: World, here: Path) -> object:
        here.mkdir()
        (here / "adapter_config.json").write_text(json.dumps(content))
        return here

    return make


def files(*names: str, ask: str = "") -> Callable[[World, Path], object]:
    def make(world: World, here: Path) -> object:
        here.mkdir()
        for name in names:
            (here / name).parent.mkdir(exist_ok=True)
            (here / name).write_bytes(b"{}")
        return here / ask

    return make


def of_peft(config: Any) -> Callable[[World, Path], object]:
    def make(world: World, here: Path) -> object:
        get_peft_model(tf.AutoModelForCausalLM.from_pretrained(world.llama), config).save_pretrained(
            str(here)
        )
        return here

    return make


def whole_model(world: World, here: Path) -> object:
    return shutil.copytree(world.llama, here)


def pickled(world: World, here: Path) -> object:
    config_of({"peft_type": "LORA", "r": 2})(world, here)
    (here / "adapter_model.bin").touch()
    return here


MLX = {"fine_tune_type": "lora", "lora_parameters": {"rank": 4, "scale": 20.0}, "model": "some/base"}
OTHERS: dict[str, tuple[Callable[[World, Path], object], tuple[str, ...]]] = {
    "MLX": (
        config_of(MLX),
        ("one of MLX", "rank 4, scale 20.0", "mlx_lm.fuse --model some/base", "lora_a transposed"),
    ),
    "MLX, DoRA": (config_of({**MLX, "fine_tune_type": "dora"}), ("fine_tune_type dora", "mlx_lm.fuse")),
    "AdapterHub": (
        config_of({"config": {"r": 8, "architecture": "lora"}, "hidden_size": 32, "model_type": "bert"}),
        ("AdapterHub", "merge_adapter"),
    ),
    "prompt tuning": (
        of_peft(PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)),  # type: ignore[arg-type]
        ("PROMPT_TUNING", "use it with PEFT itself"),
    ),
    "IA3": (
        of_peft(IA3Config(task_type="CAUSAL_LM", target_modules=["q_proj"], feedforward_modules=[])),  # type: ignore[arg-type]
        ("IA3", "merge_and_unload"),
    ),
    "a whole model": (whole_model, ("it is a whole model: --model",)),
    "GGUF": (files("lora.gguf"), ("lora.gguf is for llama.cpp", "PEFT folder")),
    "one GGUF file": (files("lora.gguf", ask="lora.gguf"), ("lora.gguf is for llama.cpp",)),
    "a Trainer's folder": (
        files("trainer_state.json", "checkpoint-60/adapter_config.json"),
        ("checkpoint-60", "the latest of 1"),
    ),
    "the weights alone": (
        files("adapter_model.safetensors"),
        ("put the adapter_config.json that belongs to",),
    ),
    "the file of the weights": (
        files("adapter_model.safetensors", "adapter_config.json", ask="adapter_model.safetensors"),
        ("give its folder",),
    ),
    "a pickle of PEFT": (
        pickled,
        ("adapter_model.bin, a pickle", "save it again"),
    ),
    "Lightning": (files("last.ckpt"), ("last.ckpt is a pickle", "save_pretrained")),
    "torchtune": (files("adapter_0.pt"), ("checkpoint of torchtune",)),
    "a name on the hub": (
        lambda world, here: "someone/some-adapter",
        ("hf download someone/some-adapter",),
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_no_lora_of_peft_is_named_with_the_way_from_there(
    kind: str, world: World, loraloom: Door, tmp_path: Path
) -> None:
    make, said = OTHERS[kind]
    answer = loraloom(
        "generate", "--model", world.llama, "--adapter", make(world, tmp_path / "it"), "the cat"
    )
    assert answer.code == 2, answer.err
    assert (
        answer.err.startswith("error: ") and "\n  next: " in answer.err and "Traceback" not in answer.err
    )
    for words in said:
        assert words in answer.err
