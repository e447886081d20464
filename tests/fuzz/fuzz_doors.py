"""The doors through which input comes in, each called as the commands call it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from loraloom.config.asked import Config
from loraloom.config.decode import load_config, to_plain
from loraloom.data.encode import Encoded, encode, preview
from loraloom.data.load import load_table
from loraloom.data.recognise import recognise
from loraloom.data.split import split
from loraloom.facts.data import data_facts
from loraloom.facts.model import model_facts, require_weights
from loraloom.lora.base import load_base, load_tokenizer
from loraloom.lora.state import load_peft
from loraloom.lora.untrusted_adapter import adapter_folder, read_adapter_config
from loraloom.store.folder import RunFolder

SHORTEST_ROWS = 8


@dataclass(frozen=True, repr=False)
class Tools:
    """A small model and tokenizers of two kinds."""

    chat: Any
    """With a template."""
    plain: Any
    """Without one."""
    model_folder: Path


def read_config(path: Path | None = None, sets: Sequence[str] = ()) -> Config:
    """A request, and its way to config.yaml and back."""
    config = load_config(path, sets=sets)
    kept = yaml.safe_dump(to_plain(config), allow_unicode=True).encode()
    assert yaml.safe_load(kept) is not None
    return config


def make_run_folder(root: Path, name: str) -> Path:
    """The folder of a run of this name, with what a run puts there first."""
    return RunFolder.create(root, name).path


def read_data(source: Path | str, config: Config, tools: Tools, *, chat: bool) -> Encoded:
    """From a file to rows that are ready to train on, with their report."""
    tokenizer = tools.chat if chat else tools.plain
    asked = config.data
    table = load_table(str(source), max_rows=asked.max_rows)
    recognised = recognise(table, asked, config.task)
    splits = split(table, asked.validation, asked.test, recognised)
    encoded = encode(splits, recognised, tokenizer, recognised.task)
    rows = sum(report.rows + report.dropped + report.same for report in encoded.report.values())
    assert rows == sum(map(len, splits.tables.values())), "a row is kept or counted"
    short = encoded.cut(SHORTEST_ROWS)
    preview(short, tokenizer)
    data_facts(short)
    return short


def read_model(folder: Path) -> None:
    """What `plan` reads of a model, and then the whole of it."""
    facts = require_weights(model_facts(str(folder)))
    load_tokenizer(str(folder))
    load_base(str(folder), facts.task)


def read_adapter(folder: Path, model: Any) -> Any:
    """An adapter as `evaluate` and `generate` load it, over a model of its own."""
    found = adapter_folder(str(folder))
    read_adapter_config(found)
    return load_peft(found, model)
