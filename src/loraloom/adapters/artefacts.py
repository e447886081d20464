"""What can be asked for token ids and logits: folders by transformers, PEFT, mlx-lm; GGUF by llama.cpp.

Shapes: T positions, V vocabulary, C classes.
"""

from __future__ import annotations

import gc
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from loraloom.adapters.base_files import BaseFiles
from loraloom.adapters.form import Form
from loraloom.adapters.shards import read_headers
from loraloom.errors import ModelError, VerificationError, first_line
from loraloom.lora.base import load_base, load_tokenizer
from loraloom.lora.record import read_record
from loraloom.lora.state import load_peft, logits_of
from loraloom.lora.untrusted_adapter import tokenizer_home
from loraloom.records import Task


class Artefact(Protocol):
    """A model that is ready to be asked."""

    @property
    def template(self) -> str | None:
        """The chat template that goes along."""
        ...

    def tokens(self, text: str) -> list[int]:
        """Ids of a plain text, framed as the tokenizer frames it."""
        ...

    def prompt(self, rendered: str) -> list[int]:
        """Ids of a conversation that the chat template wrote, as whoever serves it makes them."""
        ...

    def logits(self, row: Sequence[int]) -> Tensor:
        """float32 [T, V] of one row; [1, C] of a classifier."""
        ...

    def stops_at(self, token: int) -> bool | None:
        """Whether an answer ends with a token; None where whoever generates decides."""
        ...


class Transformers:
    """A model of transformers in float32 on the CPU, as it is or with PEFT's adapter around it."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer

    @property
    def template(self) -> str | None:
        return getattr(self.tokenizer, "chat_template", None)

    def tokens(self, text: str) -> list[int]:
        return list(self.tokenizer(text).input_ids)

    def prompt(self, rendered: str) -> list[int]:
        return list(self.tokenizer(rendered, add_special_tokens=False).input_ids)

    def logits(self, row: Sequence[int]) -> Tensor:
        ids = torch.tensor([list(row)])
        decoder = ["decoder_input_ids"] if self.model.config.is_encoder_decoder else []
        return logits_of(self.model, dict.fromkeys(["input_ids", *decoder], ids)).flatten(0, -2)

    def stops_at(self, token: int) -> bool | None:
        return True if token == self.tokenizer.eos_token_id else None


@contextmanager
def model_folder(folder: Path, task: Task) -> Generator[Transformers]:
    """A merged model.

    Raises:
        VerificationError: it is not even a model.
    """
    try:
        read_headers(folder)
        base = load_base(str(folder), task)
    except ModelError as error:
        raise _unloadable(folder, f"{error.what}: {error.got}" if error.got else error.what) from error
    yield Transformers(base.model, base.tokenizer)
    del base
    gc.collect()  # PEFT and transformers leave circles behind, and each holds a model


@contextmanager
def peft_folder(folder: Path, files: BaseFiles, task: Task) -> Generator[Transformers]:
    """An adapter as PEFT runs it over its base, in modules that have never seen our code.

    Raises:
        ModelError: adapter or base cannot be loaded.
    """
    names = None
    if task == "seq_cls":
        count = int(files.model.config.num_labels)
        names = read_record(folder).label_names or tuple(f"LABEL_{n}" for n in range(count))
    tokenizer = load_tokenizer(tokenizer_home(folder, str(files.folder)))
    base = load_base(str(files.folder), task, label_names=names)
    base.read_with(tokenizer)
    yield Transformers(load_peft(folder, base.model), tokenizer)
    del base
    gc.collect()


class Gguf:
    """A GGUF file as llama.cpp runs it, with a GGUF LoRA or without."""

    def __init__(self, loaded: Any) -> None:
        self._loaded = loaded

    @property
    def template(self) -> str | None:
        return self._loaded.chat_template

    def tokens(self, text: str) -> list[int]:
        return self._loaded.tokens(text)

    def prompt(self, rendered: str) -> list[int]:
        """llama.cpp puts its own BOS before a conversation, but for one that begins with it."""
        own = self._loaded.tokens("")[:1]
        found = self._loaded.tokens(rendered)
        return found[1:] if own and found[:2] == own * 2 else found

    def logits(self, row: Sequence[int]) -> Tensor:
        return self._loaded.logits(row)

    def stops_at(self, token: int) -> bool | None:
        return self._loaded.ends_generation(token)


class Mlx:
    """A base with an adapter as mlx-lm runs it."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model, self._tokenizer = model, tokenizer

    @property
    def template(self) -> str | None:
        return getattr(self._tokenizer, "chat_template", None)

    def tokens(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text))

    def prompt(self, rendered: str) -> list[int]:
        return list(self._tokenizer.encode(rendered, add_special_tokens=False))

    def logits(self, row: Sequence[int]) -> Tensor:
        import mlx.core as mx  # pyright: ignore[reportMissingImports]
        import numpy as np

        found = self._model(mx.array([list(row)]))[0].astype(mx.float32)
        return torch.from_numpy(np.array(found))

    def stops_at(self, token: int) -> bool | None:
        return token in self._tokenizer.eos_token_ids


@contextmanager
def mlx_folder(folder: Path, base: Path) -> Generator[Mlx]:
    """An adapter of mlx-lm over its base, in float32.

    Raises:
        VerificationError: mlx-lm cannot load them.
    """
    from importlib import import_module

    mlx, loader = import_module("mlx.core"), import_module("mlx_lm")
    try:
        model, tokenizer = loader.load(str(base), adapter_path=str(folder))
        model.set_dtype(mlx.float32)
    # another library reads our files, and refuses in its own ways
    except Exception as error:
        raise _unloadable(folder, first_line(error)) from error
    yield Mlx(model, tokenizer)


def form_home(form: Form, files: BaseFiles) -> str:
    """Whose tokenizer reads an adapter's rows."""
    return tokenizer_home(form.folder, str(files.folder))


def _unloadable(place: Path, got: str) -> VerificationError:
    return VerificationError(
        f"{place} cannot be loaded",
        got=got,
        need="the files as they were written",
        next="export the adapter again",
    )
