"""The targets by the names that a person types, each in a file of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from typing import Any

from loraloom.adapters.artefacts import Artefact, mlx_folder, model_folder, peft_folder
from loraloom.adapters.export.gguf import gguf_promise, opened_base, opened_gguf
from loraloom.adapters.export.target import Export, Source
from loraloom.adapters.gguf.converter import KINDS as GGUF_KINDS
from loraloom.adapters.proof import Promise, promise_of
from loraloom.adapters.verify import task_of
from loraloom.errors import ModelError, RequestError

TARGETS: Mapping[str, str] = {
    "merged": "loraloom.adapters.export.merged",
    "vllm": "loraloom.adapters.export.vllm",
    "sglang": "loraloom.adapters.export.sglang",
    "mlx": "loraloom.adapters.export.mlx",
    "gguf": "loraloom.adapters.export.gguf",
    "gguf-lora": "loraloom.adapters.export.gguf_lora",
    "ollama": "loraloom.adapters.export.ollama",
}
"""Modules with a function `plan` from a `Source` and what stands after the colon to an `Export`."""
KINDS: Mapping[str, tuple[str, ...]] = {"gguf": GGUF_KINDS, "ollama": GGUF_KINDS}
"""What may stand after the colon, by target."""


def plan_export(source: Source, target: str) -> Export:
    """What is to be written for a target.

    Raises:
        RequestError: there is no such target, or it does not take the adapter.
    """
    name, colon, kind = target.partition(":")
    check_target(target)
    for factor in source.form.factors.values():
        source.files.layer(factor)  # refuses an adapter of another base
    make: Callable[[Source, str | None], Export] = import_module(TARGETS[name]).plan
    return make(source, kind if colon else None)


def check_target(target: str) -> None:
    """Raises RequestError for a target that is not known."""
    name, colon, kind = target.partition(":")
    known = KINDS.get(name, ())
    if name in TARGETS and (kind in known if colon else True):
        return
    every = [f"{one}:{'|'.join(KINDS[one])}" if one in KINDS else one for one in TARGETS]
    raise RequestError(
        f"there is no target `{target}`", need=f"one of {', '.join(every)}", next="--to merged"
    )


def folder_name(target: str) -> str:
    """What the folder of a target is called where several lie side by side."""
    return target.replace(":", "-")


def promise_again(source: Source, made_of: Mapping[str, Any]) -> Promise:
    """What an artefact that was written before has to keep to.

    Args:
        made_of: its proof. A format without a bound may lose twice of what it lost then, because other
            processors round otherwise.
    """
    kind = str(made_of.get("format"))
    found = gguf_promise(source.files, kind) if kind.startswith("GGUF ") else promise_of(kind)
    before = made_of.get("kl_mean")
    return Promise(2 * before) if found.kl is None and isinstance(before, float) else found


def opened_again(
    source: Source, format: str, folder: Path, file: str | None
) -> AbstractContextManager[Artefact]:
    """An artefact that was written before, ready to be asked.

    Args:
        format, file: as its proof says.

    Raises:
        ModelError: the format is not known.
    """
    if format == "PEFT":
        return peft_folder(folder, source.files, task_of(source.files))
    if format == "MLX":
        return mlx_folder(folder, source.files.folder)
    if format == "GGUF LoRA" and file:
        return opened_base(source.files.folder, "F32", folder / file)
    if format.startswith("GGUF ") and file:
        return opened_gguf(folder / file)
    if (folder / "config.json").is_file():
        return model_folder(folder, task_of(source.files))
    raise ModelError(
        f"{folder} has a proof of a format that is not known",
        got=f"{format}, {file}",
        next="export the adapter again",
    )
