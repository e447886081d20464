"""A LLaMA of random weights as a folder, with a tokenizer and rows of a given number of tokens.

Weights are drawn in bfloat16 and written block by block, each into a file of its own: making a model
takes no more memory than one of its blocks, or its embeddings.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SPECIAL = ["<pad>", "<eos>", "<unk>"]
SPREAD = 0.02
"""Standard deviation of the weights, as `LlamaConfig.initializer_range` has it."""


def save_base(folder: Path, shape: Mapping[str, Any]) -> Path:
    """Write config, weights and tokenizer.

    Args:
        shape: arguments of LlamaConfig.
    """
    folder.mkdir(parents=True)
    config = LlamaConfig(
        **shape, max_position_embeddings=1024, dtype="bfloat16", pad_token_id=0, eos_token_id=1
    )
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)
    _save_tokenizer(folder, config.vocab_size)
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    # Parameters, not a state dict: tied embeddings are one of them.
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    files: dict[str, list[str]] = {}
    for name in shapes:
        block = re.search(r"layers\.(\d+)\.", name)
        files.setdefault(f"model-{block[1] if block else 'rest'}.safetensors", []).append(name)
    draw = torch.Generator().manual_seed(0)
    for file, names in files.items():
        save_file({name: _drawn(name, shapes[name], draw) for name in names}, folder / file)
    index = {"metadata": {}, "weight_map": {name: file for file, own in files.items() for name in own}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def _drawn(name: str, shape: tuple[int, ...], draw: torch.Generator) -> torch.Tensor:
    weight = torch.empty(shape, dtype=torch.bfloat16)
    return weight.fill_(1.0) if "norm" in name else weight.normal_(0.0, SPREAD, generator=draw)


def _save_tokenizer(folder: Path, vocabulary: int) -> None:
    """One word a token, `w3` for the token 3."""
    tokens = [*SPECIAL, *(f"w{number}" for number in range(len(SPECIAL), vocabulary))]
    inner = Tokenizer(
        models.WordLevel({token: number for number, token in enumerate(tokens)}, unk_token="<unk>")
    )
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    ).save_pretrained(folder)


def save_rows(path: Path, vocabulary: int, tokens: int, count: int, seed: int) -> str:
    """Random rows of so many tokens each; the last is the end that loraloom adds to a text. They are
    drawn from the whole vocabulary: of a mapped file, what nobody reads takes no memory."""
    draw = random.Random(seed)
    texts = (
        " ".join(f"w{draw.randrange(len(SPECIAL), vocabulary)}" for _ in range(tokens - 1))
        for _ in range(count)
    )
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)
