"""The verbs of `loraloom adapter`: adapter and base are found and handed on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loraloom.adapters.inspect import Inspection, inspect_adapter
from loraloom.errors import ModelError, RequestError
from loraloom.facts.source import model_folder
from loraloom.facts.weights import find_weights, weights_fingerprint
from loraloom.lora.untrusted_adapter import adapter_folder, read_adapter_config
from loraloom.pipeline.beside import record_of, run_around


@dataclass(frozen=True)
class TrainedOver:
    """What is known of the base that an adapter was trained over.

    Attributes:
        fingerprint: of its files; empty where the adapter lies in no run.
        matches: whether the base that was given has it; None where one of the two is not known.
    """

    name: str | None
    quantization: str
    fingerprint: str
    matches: bool | None


def inspect(adapter: str, model: str | None) -> tuple[Inspection, TrainedOver]:
    """Look at an adapter; beside its base where one is named.

    Raises:
        RequestError: one of the two cannot be used, or they do not fit.
    """
    folder = adapter_folder(adapter)
    base = None if model is None else base_folder(model)
    return inspect_adapter(folder, base), trained_over(folder, base)


def base_folder(model: str) -> Path:
    """The folder of a base, or of its copy in the hub's cache.

    Raises:
        ModelError: it is not on this machine.
    """
    folder = model_folder(model)
    if folder is None:
        raise ModelError(
            f"the base {model} is not on this machine",
            need="a folder with config.json and safetensors",
            next=f"hf download {model}, or --model FOLDER",
        )
    return folder


def base_for(folder: Path, model: str | None) -> Path:
    """The base that was named, else the one that the adapter's config names.

    Raises:
        RequestError: neither names one that is here, or it is not the one that the run trained over.
    """
    name: Any = model or read_adapter_config(folder).get("base_model_name_or_path")
    if not name:
        raise RequestError("the adapter does not say what its base is", next="--model BASE")
    base = base_folder(name)
    over = trained_over(folder, base)
    if over.matches is False:
        raise ModelError(
            f"the adapter in {folder} was trained over other weights than these",
            where=str(base),
            got=f"fingerprint {weights_fingerprint(base)}",
            need=f"{over.fingerprint}, that of {over.name} when the run began",
            next="--model BASE, the files that it was trained over",
        )
    return base


def trained_over(folder: Path, base: Path | None = None) -> TrainedOver:
    """What an adapter's files, and the run that it lies in, say of its base."""
    run = run_around(folder)
    known = "" if run is None else run.result().base_fingerprint
    usable = base is not None and bool(known) and not find_weights(base).problem
    matches = weights_fingerprint(base) == known if usable and base is not None else None
    name = read_adapter_config(folder).get("base_model_name_or_path")
    return TrainedOver(name, record_of(folder).quantization, known, matches)
