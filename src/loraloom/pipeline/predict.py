"""`loraloom predict`: labels or answers for new rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loraloom.config.asked import Config
from loraloom.data.encode import Encoded, encode
from loraloom.data.gaps import read_unanswered
from loraloom.data.load import load_table
from loraloom.data.rows import Row
from loraloom.data.split import Splits
from loraloom.data.table import Table
from loraloom.data.tokens import document_end, frame_of
from loraloom.errors import ConfigError, ModelError
from loraloom.evals.choices import by_length, class_probabilities
from loraloom.evals.writing import Exercise, exercise, position_limit, written
from loraloom.facts.device import device_facts
from loraloom.facts.model import ModelFacts, model_facts, require_weights
from loraloom.lora.base import Base, load_base, load_tokenizer
from loraloom.lora.state import PEFT_TASKS, load_peft, require_embeddings
from loraloom.lora.untrusted_adapter import adapter_folder, read_adapter_config
from loraloom.pipeline.beside import base_of, quantization_of, tokenizer_beside
from loraloom.pipeline.classes import classes_to_score
from loraloom.pipeline.device_errors import device_errors
from loraloom.pipeline.evaluate import cut_as_trained
from loraloom.records import Task

COLUMN = "predicted"
PROBABILITY = "probability"
"""Columns that are added to a row: the label or the answer; of classes, how probable each is."""

Tick = Callable[[int, int], object]
"""Told how many rows are done, and of how many."""


@dataclass(frozen=True)
class Predicted:
    """Rows as they were given, in their order, each with what was predicted for it."""

    rows: list[dict[str, Any]]
    model: str
    adapter: str | None
    task: Task
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The document of `predict --json`."""
        about = {"model": self.model, "adapter": self.adapter, "task": self.task, "rows": self.rows}
        return {**about, "notes": list(self.notes)}


@dataclass(frozen=True)
class _Asked:
    """A request that was read: rows as they are and as the model takes them."""

    table: Table
    data: Encoded
    facts: ModelFacts
    folder: Path | None
    tokenizer: Any


@device_errors()
def predict(
    config: Config,
    adapter: str | None,
    *,
    probabilities: bool = False,
    max_new_tokens: int = 128,
    dry_run: bool = False,
    tick: Tick = lambda done, rows: None,
) -> Predicted:
    """Labels of a classifier, or answers of a language model, for rows that need have neither.

    Args:
        config: `data.train` names the rows; `model.name_or_path` may be left out with
            an adapter, which knows its base.
        adapter: folder of a PEFT adapter, or of a run (its best/); None asks the bare base.
        probabilities: add that of each class; language models have none.
        max_new_tokens: longest answer.
        dry_run: read everything and predict nothing: rows come back as they are.

    Returns:
        Every row with all its columns and `predicted`; with `probabilities`, {class:
            probability} under `probability`.

    Raises:
        RequestError: the adapter, the model or the rows cannot be used.
    """
    if config.data.train is None:
        raise ConfigError("no rows were given", next="--data FILE")
    table = load_table(
        config.data.train, split="test", max_rows=config.data.max_rows, seed=config.training.seed
    )
    return predict_table(
        config,
        adapter,
        table,
        probabilities=probabilities,
        max_new_tokens=max_new_tokens,
        dry_run=dry_run,
        tick=tick,
    )


def predict_table(
    config: Config,
    adapter: str | None,
    table: Table,
    *,
    probabilities: bool = False,
    max_new_tokens: int = 128,
    dry_run: bool = False,
    tick: Tick = lambda done, rows: None,
) -> Predicted:
    """The same for rows that are at hand. Arguments and errors as of `predict`."""
    asked = _read(config, adapter, table)
    rows: list[dict[str, Any]] = [dict(row) for row in asked.table.rows]
    clash = next((name for name in (COLUMN, PROBABILITY) if name in asked.table.columns), None)
    if clash is not None:
        raise ConfigError(
            f"the rows have a column `{clash}` already",
            where=asked.table.source,
            next="rename the column",
        )
    if probabilities and asked.data.task != "seq_cls":
        raise ConfigError(
            "probabilities are those of classes, and this model writes text",
            next="leave --probabilities out",
        )
    notes = list(asked.data.notes)
    if not dry_run:
        device = device_facts()
        notes += [device.notice] if device.notice else []
        base, model = _load(config, asked, device.kind)
        if asked.data.task == "seq_cls":
            _add_labels(
                rows, _classified(model, base, asked, tick), asked.data.label_names or (), probabilities
            )
        else:
            notes += _add_answers(rows, model, base, asked, max_new_tokens, tick)
    where = None if asked.folder is None else str(asked.folder)
    return Predicted(rows, asked.facts.name_or_path, where, asked.data.task, tuple(notes))


def _read(config: Config, adapter: str | None, table: Table) -> _Asked:
    folder = None if adapter is None else adapter_folder(adapter)
    described = {} if folder is None else read_adapter_config(folder)
    name = base_of(config.model.name_or_path, [described])
    trust = config.model.trust_remote_code
    facts = require_weights(model_facts(name, revision=config.model.revision, trust_remote_code=trust))
    task = _task(config, described, facts)
    if task == "seq_cls" and facts.task != "seq_cls":
        facts = model_facts(
            name, revision=config.model.revision, trust_remote_code=trust, task="seq_cls"
        )
    known = classes_to_score(config, facts, folder) if task == "seq_cls" else None
    if task == "seq_cls" and known is None:
        raise ModelError(
            f"{name} has no trained head for classes",
            next="name a classifier's adapter with --adapter, and leave --base out",
        )
    filled, recognised = read_unanswered(
        table,
        config.data,
        task,
        encoder_decoder=facts.kind == "encoder_decoder",
        label=known.names[0] if known else "...",
    )
    own = load_tokenizer(name, revision=config.model.revision, trust_remote_code=trust)
    tokenizer = own if folder is None else tokenizer_beside(folder, own)
    data = encode(Splits(filled), recognised, tokenizer, task, known)
    if task == "seq_cls":
        data = cut_as_trained(data, config, folder, facts)
    if len(data.train) != len(table):
        raise ConfigError(
            f"{len(table) - len(data.train):,} of {len(table):,} rows ask nothing",
            where=table.source,
            next="remove them",
        )
    return _Asked(table, data, facts, folder, tokenizer)


def _task(config: Config, described: Mapping[str, Any], facts: ModelFacts) -> Task:
    """What the adapter was trained for, as its config says; else what was asked, else
    what the base is made for."""
    tasks: tuple[Task, ...] = ("causal_lm", "seq_cls", "seq2seq_lm")
    for task in tasks:
        if PEFT_TASKS[task] == described.get("task_type"):
            if config.task not in ("auto", task):
                raise ConfigError(
                    f"the adapter was trained for {task}, not for {config.task}", next="leave --task out"
                )
            return task
    return facts.task if config.task == "auto" else config.task


def _load(config: Config, asked: _Asked, device: str) -> tuple[Base, Any]:
    """The base and the model over it that answers, in eval mode."""
    dtype = "float32" if config.model.dtype == "auto" else config.model.dtype
    base = load_base(
        asked.facts.name_or_path,
        asked.data.task,
        label_names=asked.data.label_names,
        dtype=dtype,
        seed=config.training.seed,
        revision=config.model.revision,
        trust_remote_code=config.model.trust_remote_code,
        device=device,
        quantization=quantization_of(config.model.quantization, asked.folder),
    )
    base.read_with(asked.tokenizer)
    model = (
        base.model.eval()
        if asked.folder is None
        else load_peft(asked.folder, base.model).get_base_model()
    )
    require_embeddings(model, [max(map(int, row.input_ids), default=0) for row in asked.data.train])
    return base, model


def _classified(model: Any, base: Base, asked: _Asked, tick: Tick) -> NDArray[np.float32]:
    rows = asked.data.train
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        tick(done, len(rows))

    return class_probabilities(model, rows, base.pad_id, count)


def _add_labels(
    rows: Sequence[dict[str, Any]],
    shares_RC: NDArray[np.float32],
    names: Sequence[str],
    probabilities: bool,
) -> None:
    for row, shares_C in zip(rows, shares_RC, strict=True):
        row[COLUMN] = names[int(shares_C.argmax())]
        if probabilities:
            row[PROBABILITY] = {name: float(share) for name, share in zip(names, shares_C, strict=True)}


def _add_answers(
    rows: Sequence[dict[str, Any]],
    model: Any,
    base: Base,
    asked: _Asked,
    max_new_tokens: int,
    tick: Tick,
) -> list[str]:
    """Write the answers; what a person should know of those that could not be written."""
    data = asked.data
    limit = position_limit(base.model, asked.data.task)
    exercises = [_exercise(row, data, asked.tokenizer) for row in data.train]
    full = {i for i, one in enumerate(exercises) if limit is not None and len(one.prompt) >= limit}
    done = 0
    for chosen in by_length(data.train):
        texts = written(
            model,
            [exercises[i] for i in chosen],
            asked.tokenizer,
            task=data.task,
            pad_id=base.pad_id,
            max_new_tokens=max_new_tokens,
        )
        for i, text in zip(chosen, texts, strict=True):
            rows[i][COLUMN] = None if i in full else text
        done += len(chosen)
        tick(done, len(rows))
    return (
        [f"{len(full):,} rows fill the model's {limit:,} positions, and have no answer"] if full else []
    )


def _exercise(row: Row, data: Encoded, tokenizer: Any) -> Exercise:
    """What comes before the answer; of a plain text all of it but the end of the document."""
    if data.format != "text":
        return exercise(row, data.task)
    ids = tuple(row.input_ids.tolist())
    end = document_end(tokenizer, frame_of(tokenizer))
    return Exercise(ids[: len(ids) - len(end)] if end and ids[-len(end) :] == end else ids, ())
