"""What is known of an adapter: its base, and how its rows were made, from the files beside it, else from
the run that it lies in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from loraloom.config import names
from loraloom.errors import ConfigError, ModelError
from loraloom.lora.base import load_tokenizer
from loraloom.lora.record import Record, read_record
from loraloom.lora.untrusted_adapter import has_tokenizer, read_adapter_config
from loraloom.store.folder import RunFolder


def base_of(model: str | None, described: Iterable[Mapping[str, Any]]) -> str:
    """The base that was asked for, else the one that an adapter's config names.

    Args:
        described: adapter configs, the first of them first.

    Raises:
        ConfigError: neither names one.
    """
    known = [config.get("base_model_name_or_path") for config in described]
    name = next(filter(None, [model, *known]), None)
    if name is None:
        raise ConfigError(
            "neither a model nor an adapter was given", next="--model NAME_OR_FOLDER or --adapter FOLDER"
        )
    return name


def record_of(folder: Path) -> Record:
    """The record of the adapter in `folder`; what neither it nor a run around it says is left open.

    Raises:
        RequestError: there is a run around it, and its files cannot be read.
    """
    record = read_record(folder)
    if record.max_length is not None:
        return record
    run = run_around(folder)
    if run is None:
        return record
    decided = run.resolved().get(names.MAX_LENGTH)
    length = decided.value if decided else None
    labels = record.label_names or tuple(run.result().labels)
    return replace(record, label_names=labels, max_length=length if isinstance(length, int) else None)


def run_around(folder: Path) -> RunFolder | None:
    """The run that an adapter lies in."""
    place = next((place for place in folder.resolve().parents if (place / "run.json").is_file()), None)
    return None if place is None else RunFolder.open(place)


def quantization_of(asked: str, folder: Path | None) -> str:
    """How to hold the base: as was asked, else as it was when the adapter in `folder`
    was trained over it."""
    if asked != "auto":
        return asked
    return "none" if folder is None else record_of(folder).quantization


def revision_of(asked: str | None, model: str, folders: Iterable[Path]) -> str | None:
    """The revision of the base `model`: as was asked, else the one that these adapters were trained
    over, as their runs or their configs say.

    Raises:
        ModelError: they were trained over several.
    """
    if asked is not None:
        return asked
    trained = {folder: _revision_under(folder, model) for folder in folders}
    known = {revision for revision in trained.values() if revision is not None}
    if len(known) > 1:
        raise ModelError(
            "these adapters cannot answer side by side",
            got=", ".join(f"{folder} over revision {which}" for folder, which in trained.items()),
            need="adapters over one revision of the base",
            next="ask them one by one",
        )
    return next(iter(known), None)


def _revision_under(folder: Path, model: str) -> str | None:
    config = read_adapter_config(folder)
    run = run_around(folder)
    if config.get("base_model_name_or_path") != model:
        return None
    written = config.get("revision")
    return (run.revision() if run else None) or (written if isinstance(written, str) else None)


def tokenizer_beside(folder: Path, own: Any) -> Any:
    """The tokenizer that was saved with an adapter, which may have another template
    than the base's `own`; else that."""
    return load_tokenizer(str(folder)) if has_tokenizer(folder) else own
