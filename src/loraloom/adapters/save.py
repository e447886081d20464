"""A new adapter written as a PEFT folder: plain LoRA, with what lay beside the one that it came from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from torch import Tensor

from loraloom.adapters.folder import finish, refuse_taken, unfinished
from loraloom.adapters.form import EMBEDDING, LINEAR, PREFIX, Form, normal
from loraloom.adapters.merge import TOKENIZER
from loraloom.adapters.shards import CODES, Entry, bytes_of, write_file
from loraloom.lora.record import NAME as RECORD
from loraloom.lora.untrusted_adapter import CONFIG, WEIGHTS


def save_form(form: Form, out: Path, rank: int | None = None) -> Path:
    """Write an adapter in its `normal` form: alpha = r, one rank, no patterns.

    Args:
        rank: what its ranks are filled up to; the largest of them when None.

    Raises:
        RequestError: the place is taken, the disk refuses, or it is not plain LoRA.
    """
    return finish(write_form(form, out, rank), out)


def write_form(form: Form, out: Path, rank: int | None = None) -> Path:
    """The same beside its place. Arguments and errors as in `save_form`.

    Returns:
        The folder with all files, still under its other name.
    """
    refuse_taken(out)
    plain = normal(form, rank)
    tensors = _tensors(plain)
    entries = [
        Entry(f"{PREFIX}{name}", CODES[tensor.dtype], tuple(tensor.shape))
        for name, tensor in sorted(tensors.items())
    ]
    with unfinished(out) as partial:
        contents = {f"{PREFIX}{name}": iter([bytes_of(value)]) for name, value in tensors.items()}
        write_file(partial / WEIGHTS, entries, contents)
        for name in (*TOKENIZER, RECORD):
            if (form.folder / name).is_file():
                shutil.copyfile(form.folder / name, partial / name)
        text = json.dumps(dict(plain.config), indent=2, ensure_ascii=False) + "\n"
        (partial / CONFIG).write_text(text, encoding="utf-8")
    return partial


def form_bytes(form: Form) -> int:
    """What the numbers of an adapter take on the disk."""
    return sum(tensor.nbytes for tensor in _tensors(form).values())


def _tensors(form: Form) -> dict[str, Tensor]:
    """Under PEFT's names, but for the prefix of all of them. A layer with an update is wrapped, and what
    it has besides, such as a bias, lies one deeper."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in form.whole.items():
        path, _, part = name.rpartition(".")
        tensors[f"{path}.base_layer.{part}" if path in form.factors else name] = tensor
    for path, factor in form.factors.items():
        first, second = EMBEDDING if factor.is_embedding else LINEAR
        tensors[f"{path}.{first}"], tensors[f"{path}.{second}"] = factor.a_RD, factor.b_OR
    for path, (_, rows) in form.tokens.items():
        tensors[f"{path}.token_adapter.trainable_tokens_delta"] = rows
    return tensors
