"""A model, or a base with an adapter in it, written as a GGUF file: each number is rounded once.

Neither transformers nor a merged folder is needed, and no more is held than some rows of one tensor, or
all of it where its rows change places.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from loraloom.adapters.gguf.families import Layout, Place
from loraloom.adapters.gguf.vocabulary import read_vocabulary
from loraloom.adapters.gguf.whole_files import Written, unfinished_file
from loraloom.adapters.gguf.writer import (
    BF16,
    F16,
    F32,
    Q8_0,
    Encoding,
    Entry,
    Unsigned,
    Value,
    size_of,
    write,
)
from loraloom.adapters.operations import Copy, Operation, Plan
from loraloom.adapters.shards import read_headers
from loraloom.errors import LoraloomError, ModelError

ENCODINGS = {one.name: one for one in (F32, F16, BF16, Q8_0)}
"""Formats that are written here."""
FALLBACK = F16
"""What a tensor is kept in whose rows do not fit into blocks, as llama.cpp's own tools do it."""


@dataclass(frozen=True)
class Source:
    """A model as config, tensors and files beside."""

    name: str
    config: Mapping[str, Any]
    tensors: Sequence[Operation]
    beside: Mapping[str, Path]


def write_model(source: Path | Plan, out: Path, kind: str, ends: Sequence[str] = ()) -> Written:
    """Write a model; nothing is left of it where that fails.

    Args:
        kind: one of `ENCODINGS`.
        ends: texts of tokens that end an answer, beside those that tokenizer and config name.

    Raises:
        RequestError: the family is none of those known here, or the disk refuses.
        ModelError: the model has a part that llama.cpp does not compute.
    """
    model, encoding = source_of(source), ENCODINGS[kind]
    with _as_input("config.json", model.name):
        layout = Layout(model.config, model.name)
        tensors = _entries(model, layout, encoding)
        sizes = layout.metadata()
    rows = next(one.shape[0] for one in tensors if one.name == "token_embd.weight")
    with _as_input("tokenizer.json", model.name):
        vocabulary = read_vocabulary(model.beside, model.config, rows, ends)
    metadata: dict[str, Value] = {
        "general.architecture": layout.arch,
        "general.type": "model",
        "general.name": _named(Path(model.name).name, vocabulary.drops_spaces),
        "general.file_type": Unsigned(encoding.file_type),
        "general.quantization_version": Unsigned(2),
        **sizes,
        f"{layout.arch}.vocab_size": Unsigned(rows),
        **vocabulary.metadata,
    }
    with unfinished_file(out, size_of(tensors)) as partial:
        write(partial, metadata, tensors)
    notes = (*layout.notes(), *vocabulary.notes, *_fallbacks(tensors, encoding))
    return Written(out, kind, out.stat().st_size, layout.family.exact, notes)


@contextmanager
def _as_input(file: str, where: str) -> Generator[None]:
    """Raises ModelError for whatever a file of the model makes its reader raise."""
    try:
        yield
    except LoraloomError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise ModelError(
            f"{file} lacks something, or has it in a form that is not known here",
            where=where,
            got=repr(error),
            next="copy the files of the model again",
        ) from error


def source_of(source: Path | Plan) -> Source:
    """Raises ModelError for a folder without config.json or safetensors, or with quantised weights."""
    if isinstance(source, Plan):
        name = str(source.config.get("_name_or_path") or _home(source))
        return Source(name, source.config, source.operations, source.beside)
    config = _config(source)
    if config.get("quantization_config"):
        raise ModelError(
            "the weights of this model are quantised",
            where=str(source),
            need="the full weights that they were made from",
            next="--model ORIGINAL",
        )
    tensors = [Copy(one) for shard in read_headers(source).values() for one in shard]
    beside = {path.name: path for path in sorted(source.iterdir()) if path.is_file()}
    return Source(str(source), config, tensors, beside)


def _home(plan: Plan) -> Path:
    """The folder that most of a plan comes from."""
    copied = (one.stored.path.parent for one in plan.operations if isinstance(one, Copy))
    return next(copied, Path("merged"))


def _config(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "config.json").read_bytes())
        if not isinstance(found, dict):
            raise ValueError("no JSON object")
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            "there is no config.json that can be read",
            where=str(folder),
            got=str(error),
            need="a model folder: config.json, safetensors, tokenizer.json",
        ) from error
    return found  # pyright: ignore[reportUnknownVariableType]


def _named(name: str, drops_spaces: bool) -> str:
    """The model's name. Where it has "phi-3" in it, and only there, llama.cpp drops spaces behind
    special tokens: so the name says what the tokenizer does."""
    sounds = any(part in name.lower() for part in ("phi-3", "phi3"))
    if drops_spaces and not sounds:
        return f"{name} (phi-3)"
    if sounds and not drops_spaces:
        return name.lower().replace("phi-3", "phi 3").replace("phi3", "phi 3")
    return name


# -- tensors -------------------------------------------------------------------------------------------


def _entries(model: Source, layout: Layout, encoding: Encoding) -> list[Entry]:
    """The tensors of the file, each with its numbers to come.

    Raises:
        ModelError: one is missing, or has no place.
    """
    found: dict[str, Entry] = {}
    for operation in model.tensors:
        place = layout.place(operation.name)
        if place is not None:
            _need_heads(operation, place)
            kept = _kept(operation.shape, encoding)
            found[place.name] = Entry(place.name, operation.shape, kept, _pieces(operation, place))
    for name, tensor in layout.further_tensors().items():
        found[name] = Entry(name, tuple(tensor.shape), F32, lambda held=tensor: iter([held]))
    missing = sorted(layout.expected() - found.keys())
    if missing:
        raise ModelError(
            f"{len(missing)} tensors of a {layout.name} are missing",
            where=model.name,
            got=f"no {', '.join(missing[:3])} in llama.cpp's words",
            next="copy the files of the model again",
        )
    return list(found.values())


def _need_heads(operation: Operation, place: Place) -> None:
    """Raises ModelError for rows that are no whole heads."""
    if place.heads and operation.shape[0] % (2 * place.heads):
        raise ModelError(
            f"`{operation.name}` has {operation.shape[0]} rows, which are no {place.heads} heads",
            need="the config.json that belongs to these weights",
            next="copy the files of the model again",
        )


def _kept(shape: tuple[int, ...], encoding: Encoding) -> Encoding:
    """Norms and biases stay float32; rows that are no whole blocks are kept in float16."""
    if len(shape) < 2:
        return F32
    return encoding if shape[-1] % encoding.block == 0 else FALLBACK


def _fallbacks(tensors: Sequence[Entry], asked: Encoding) -> list[str]:
    others = [one for one in tensors if len(one.shape) > 1 and one.encoding not in (asked, F32)]
    if not others:
        return []
    name, row = others[0].name, others[0].shape[-1]
    return [
        f"{len(others)} tensors are {FALLBACK.name}, for {asked.name} wants rows in multiples of"
        f" {asked.block}: {name} has rows of {row}"
    ]


def _pieces(operation: Operation, place: Place) -> Callable[[], Iterator[Tensor]]:
    """The numbers of a tensor, some rows at a time where they keep their order."""

    def pieces() -> Iterator[Tensor]:
        for rows in [operation.value()] if place.heads else operation.pieces():
            yield _finite(operation.name, place.of(rows.float()))

    return pieces


def _finite(name: str, values: Tensor) -> Tensor:
    """Raises ModelError for numbers that are none."""
    if not values.isfinite().all():
        raise ModelError(f"`{name}` has numbers that are none", need="finite numbers")
    return values
