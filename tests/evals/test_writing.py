"""What is written without a temperature: always the likeliest token, whatever the model's
generation_config asks for."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers as tf

from loraloom.evals.writing import continuations
from loraloom.records import Task

VOCAB = 37
TOKENIZER: Any = SimpleNamespace(
    eos_token_id=None, decode=lambda ids, **_: " ".join(map(str, ids.tolist()))
)
ASKED = {
    "beams": {"num_beams": 4, "length_penalty": 3.0},
    "a penalty on repetition": {"repetition_penalty": 5.0},
    "no repeated pair": {"no_repeat_ngram_size": 2},
    "forbidden words": {"suppress_tokens": list(range(VOCAB - 5))},
    "sampling": {"do_sample": True, "temperature": 5.0, "top_k": 0},
    "a contrast": {"guidance_scale": 3.0},
}


def causal() -> Any:
    torch.manual_seed(0)
    config = tf.LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        initializer_range=0.3,
        bos_token_id=1,
        eos_token_id=2,
    )
    return tf.AutoModelForCausalLM.from_config(config).eval()


def pair() -> Any:
    torch.manual_seed(0)
    config = tf.T5Config(
        vocab_size=VOCAB,
        d_model=16,
        d_kv=8,
        d_ff=16,
        num_layers=1,
        num_heads=2,
        decoder_start_token_id=0,
        initializer_factor=5.0,
    )
    return tf.AutoModelForSeq2SeqLM.from_config(config).eval()


def likeliest(model: Any, prompt: list[int], count: int) -> list[int]:
    """By hand: one pass for each token."""
    ids, pairs = torch.tensor([prompt]), model.config.is_encoder_decoder
    so_far = torch.tensor([[0]]) if pairs else ids
    for _ in range(count):
        inputs = {"input_ids": ids, "decoder_input_ids": so_far} if pairs else {"input_ids": so_far}
        with torch.no_grad():
            chosen = model(**inputs).logits[:, -1].argmax(-1, keepdim=True)
        so_far = torch.cat([so_far, chosen], 1)
        if int(chosen) in (1 if pairs else 2,):
            break
    return so_far[0].tolist() if pairs else so_far[0, len(prompt) :].tolist()


@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "under PEFT"])
@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize(("task", "make"), [("causal_lm", causal), ("seq2seq_lm", pair)])
def test_without_a_temperature_the_likeliest_token_is_taken(
    task: Task, make: Any, asked: str, wrapped: bool
) -> None:
    from peft import LoraConfig, get_peft_model

    model, prompt = make(), [5, 9, 5, 9, 11]
    expected = " ".join(map(str, likeliest(model, prompt, 12)))
    for name, value in ASKED[asked].items():
        setattr(model.generation_config, name, value)
    kept = copy.deepcopy(model.generation_config)
    if wrapped:
        target = "q" if task == "seq2seq_lm" else "q_proj"
        kind = "SEQ_2_SEQ_LM" if task == "seq2seq_lm" else "CAUSAL_LM"
        model = get_peft_model(model, LoraConfig(r=1, target_modules=[target], task_type=kind)).eval()
    found = continuations(model, [prompt], TOKENIZER, task=task, pad_id=0, max_new_tokens=12)
    assert found == [expected]
    assert model.generation_config.to_dict() == kept.to_dict(), (
        "what the model asks for elsewhere stays as it was"
    )
