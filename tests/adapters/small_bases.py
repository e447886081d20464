"""Tiny bases and adapters of PEFT over them, each with every part random."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as tf
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers

from loraloom.cli.main import main

SIZES = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 40,
    "vocab_size": 61,
    "initializer_range": 0.2,
}
GPT2 = {"n_embd": 24, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": 61}
T5 = {"d_model": 24, "d_kv": 6, "d_ff": 40, "num_layers": 2, "num_heads": 4, "vocab_size": 61}
BERT = {key: value for key, value in SIZES.items() if key != "num_key_value_heads"}


def build(kind: str) -> Any:
    """A random model."""
    torch.manual_seed(0)
    models: dict[str, Callable[[], Any]] = {
        "llama": lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**SIZES)),
        "tied": lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**SIZES, tie_word_embeddings=True)),
        "qwen2": lambda: tf.Qwen2ForCausalLM(tf.Qwen2Config(**SIZES)),
        "gpt2": lambda: tf.GPT2LMHeadModel(tf.GPT2Config(**GPT2)),
        "bert": lambda: tf.BertModel(tf.BertConfig(**BERT)),
        "roberta": lambda: tf.RobertaModel(tf.RobertaConfig(**BERT, max_position_embeddings=66)),
        "t5": lambda: tf.T5ForConditionalGeneration(
            tf.T5Config(**T5, decoder_start_token_id=0, pad_token_id=0)
        ),
    }
    model = models[kind]()
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:  # norms that are not 1, biases that are not 0
            torch.nn.init.normal_(parameter, 1.0 if "norm" in name or "ln_" in name else 0.0, 0.1)
    return model


def save_base(kind: str, folder: Path, dtype: torch.dtype = torch.float32, shard: str = "5GB") -> Path:
    """A model folder with a tokenizer."""
    build(kind).to(dtype).save_pretrained(folder, max_shard_size=shard)
    words = ["<pad>", "<unk>", "</s>", *(f"w{number}" for number in range(58))]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    tokenizer = tf.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", unk_token="<unk>", eos_token="</s>"
    )
    tokenizer.save_pretrained(folder)
    return folder


AUTO = {
    "CAUSAL_LM": tf.AutoModelForCausalLM,
    "SEQ_CLS": tf.AutoModelForSequenceClassification,
    "SEQ_2_SEQ_LM": tf.AutoModelForSeq2SeqLM,
}


def load_base(base: Path, task: str, dtype: torch.dtype = torch.float32) -> Any:
    """The task's model; a head that is new is random."""
    extra = {"num_labels": 3} if task == "SEQ_CLS" else {}
    return AUTO[task].from_pretrained(base, dtype=dtype, **extra)


def save_adapter(
    base: Path,
    folder: Path,
    *,
    task: str = "CAUSAL_LM",
    seed: int = 1,
    spread: float = 0.05,
    **config: Any,
) -> Path:
    """An adapter of PEFT whose trained numbers are all moved at random."""
    torch.manual_seed(seed)
    asked = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], **config}
    made: Any = get_peft_model(load_base(base, task), LoraConfig(task_type=task, **asked))
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * spread)
    made.save_pretrained(str(folder))
    return folder


def called(*words: object) -> tuple[int, str, str]:
    """One command line in this process: exit code, stdout, stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(word) for word in words])
    return code, out.getvalue(), err.getvalue()
