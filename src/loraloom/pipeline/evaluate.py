"""`loraloom evaluate`: the metrics of a saved adapter, or of the bare base, on a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from loraloom.config.asked import Config
from loraloom.data.batches import collate
from loraloom.data.encode import Encoded, encode
from loraloom.data.load import load_table
from loraloom.data.recognise import recognise
from loraloom.data.rows import sides_of
from loraloom.data.split import Splits
from loraloom.data.split import split as cut_apart
from loraloom.errors import ConfigError
from loraloom.evals.choices import by_length
from loraloom.evals.metrics import text_metrics, text_scores
from loraloom.evals.objective import objective_for
from loraloom.evals.reward import RewardObjective
from loraloom.evals.scoring import RowSums, RowTable, on_host, score_of
from loraloom.evals.writing import exercise, written
from loraloom.facts.device import device_facts
from loraloom.facts.model import ModelFacts, model_facts, require_weights
from loraloom.lora.base import Base, load_base, load_tokenizer
from loraloom.lora.state import PEFT_TASKS, load_peft, require_embeddings
from loraloom.lora.untrusted_adapter import (
    adapter_folder,
    has_tokenizer,
    read_adapter_config,
    tokenizer_home,
)
from loraloom.pipeline.beside import base_of, quantization_of, record_of, revision_of
from loraloom.pipeline.classes import classes_to_score, refuse_unlabelled
from loraloom.pipeline.device_errors import device_errors
from loraloom.pipeline.preferences import held_against, spec_of
from loraloom.pipeline.prepare import deciding_metric
from loraloom.pipeline.rewards import as_rewards, one_output, why_rewards
from loraloom.pipeline.training_rows import training_rows
from loraloom.plan.rules.max_length import refuse_beyond_positions
from loraloom.records import Task, built_as

LONGEST = 2**20
"""Tokens of a row, for models without an end."""


@device_errors()
def evaluate(
    config: Config,
    adapter: str | None,
    split: str = "test",
    metrics: Sequence[str] = (),
    max_new_tokens: int = 128,
) -> dict[str, Any]:
    """Score a model on data that the config names.

    Args:
        config: `model.name_or_path` may be left out with an adapter: it knows its base. `data.SPLIT`
            names the rows, or is a share: then they are the ones that a run of this config keeps aside,
            those for a race among validation. Data given as `data.train` alone are scored as they are.
        adapter: folder of a PEFT adapter, or of one of our runs (its best/); None for the bare base.
        split: "test", "validation" or "train": which file of the config's data, and the
            prefix of the metrics.
        metrics: of what the model writes, beside those of its choices: names of
            `TEXT_METRICS`, or MODULE:FUNCTION.
        max_new_tokens: longest text that is written for them.

    Returns:
        {model, adapter, task, split, rows, quantization, metrics, notes}.

    Raises:
        RequestError: the adapter, the model or the data cannot be used.
    """
    if split not in ("train", "validation", "test"):
        raise ConfigError(
            f"there is no split `{split}`", need="train, validation or test", next="--split test"
        )
    asked = text_metrics(metrics)
    folder = None if adapter is None else adapter_folder(adapter)
    described = {} if folder is None else read_adapter_config(folder)
    name = base_of(config.model.name_or_path, [described])
    revision = revision_of(config.model.revision, name, [] if folder is None else [folder])
    facts = require_weights(
        model_facts(name, revision=revision, trust_remote_code=config.model.trust_remote_code)
    )
    data = rows_of(config, split, folder, facts)
    _check_task(data.task, described.get("task_type"), folder, metrics)
    held = quantization_of(config.model.quantization, folder)
    dtype = "float32" if config.model.dtype == "auto" else config.model.dtype
    device = device_facts()
    base = load_base(
        name,
        built_as(data.task),
        label_names=data.label_names,
        dtype=dtype,
        seed=config.training.seed,
        revision=revision,
        trust_remote_code=config.model.trust_remote_code,
        device=device.kind,
        quantization=held,
    )
    if folder is not None and has_tokenizer(folder):
        base.read_with(load_tokenizer(str(folder), trust_remote_code=config.model.trust_remote_code))
    formed = spec_of(config, folder, data) if data.task == "preference" else None
    if data.task == "reward":
        objective = RewardObjective(base.model)
    elif formed is None:
        objective = objective_for(data.task, base.model)
    else:
        objective = held_against(base, config, folder, data, formed)
    model = base.model.eval() if folder is None else load_peft(folder, base.model).get_base_model()
    require_embeddings(model, [max(map(int, row.input_ids), default=0) for row in sides_of(data.train)])
    metric, _ = deciding_metric("auto", data.task)
    score = score_of(_sums(model, base, data, objective), split, objective, metric, formed)
    found = dict(score.metrics)
    if asked:
        found |= text_scores(asked, *_texts(model, base, data, max_new_tokens))
    return {
        "model": name,
        "adapter": None if folder is None else str(folder),
        "task": data.task,
        "split": split,
        "rows": len(data.train),
        "quantization": held,
        "metrics": {f"{split}_{key}": value for key, value in found.items()},
        "notes": [*data.notes, *([device.notice] if device.notice else [])],
    }


def _check_task(task: Task, trained: str | None, folder: Path | None, metrics: Sequence[str]) -> None:
    """Refuse rows of another task than the adapter was trained for, and metrics of texts for classes.

    Raises:
        ConfigError: one of these.
    """
    if trained not in (None, PEFT_TASKS[task]):
        raise ConfigError(
            f"the adapter was trained for {trained}, and these rows are for {PEFT_TASKS[task]}",
            where=str(folder),
            next="give rows of the adapter's task, or say what they are with --task",
        )
    if metrics and built_as(task) == "seq_cls":
        raise ConfigError(
            f"metric `{metrics[0]}` judges texts, and a classifier writes none",
            need="causal_lm or seq2seq_lm",
            next="leave --metric out: accuracy, macro F1 and MCC are always given",
        )


def rows_of(config: Config, split: str, folder: Path | None, model: ModelFacts) -> Encoded:
    """The rows of a split as an adapter reads them, under `train`; as in `evaluate`."""
    held_out = {"test": config.data.test, "validation": config.data.validation}.get(split)
    share = isinstance(held_out, float)
    asked = config.data
    encoder_decoder = model.kind == "encoder_decoder"
    if isinstance(held_out, str | tuple):
        table = load_table(held_out, split=split, max_rows=asked.max_rows, seed=config.training.seed)
        recognised = recognise(table, asked, config.task, encoder_decoder=encoder_decoder)
    elif asked.train is None:
        raise ConfigError("no data was given to evaluate on", next="--data FILE")
    else:
        table, recognised = training_rows(
            config, "train" if share else split, encoder_decoder=encoder_decoder
        )
    recognised = as_rewards(recognised, table, config.task, why_rewards(model, folder))
    refuse_unlabelled(model, table, recognised)
    parts = Splits(table)
    if share:
        # The rows that the run itself had kept aside, not those that it was trained on.
        parts = cut_apart(
            table,
            asked.validation,
            asked.test,
            recognised,
            group_column=asked.group_column,
            seed=config.training.seed,
        )
    trusted = config.model.trust_remote_code
    tokenizer = load_tokenizer(tokenizer_home(folder, model.name_or_path), trust_remote_code=trusted)
    known = None
    notes = tuple[str, ...]()
    if built_as(recognised.task) == "seq_cls":
        if model.task != "seq_cls":
            model = model_facts(
                model.name_or_path, revision=model.revision, trust_remote_code=trusted, task="seq_cls"
            )
        known = classes_to_score(config, model, folder)
        if recognised.task == "reward":
            known = one_output(known, model, folder)
        notes = (
            ()
            if known
            else (f"{_headless(model, folder)} trained head for this: what is chosen is chance",)
        )
    encoded = encode(parts, recognised, tokenizer, recognised.task, known)
    encoded = replace(encoded, notes=(*encoded.notes, *notes))
    return cut_as_trained(encoded, config, folder, model, split if share else "train")


def cut_as_trained(
    data: Encoded, config: Config, folder: Path | None, model: ModelFacts, part: str = "train"
) -> Encoded:
    """The rows of one part, none longer than `longest_row` says; what that cost is in the notes.

    Raises:
        ConfigError: `data.max_length` is more than the model's positions.
    """
    length, why = longest_row(config, folder, model)
    cut = data.cut(length)
    before = data.report[part]
    after = cut.report[part]
    notes = list(data.notes)
    if before.dropped:
        notes.append(
            f"{before.dropped:,} rows have {'no label' if data.task == 'seq_cls' else 'no answer'} and"
            " are left out"
        )
    if after.cut:
        notes.append(cut_note(after.cut, before.rows, length, why))
    if lost := after.dropped - before.dropped:
        notes.append(f"{lost:,} rows have nothing to score before that, and are left out")
    # Only now the part alone: which of its rows are left depends on those that the
    # model cannot tell from trained ones.
    return replace(cut, train=cut.splits[part], notes=tuple(notes))


def longest_row(config: Config, folder: Path | None, model: ModelFacts) -> tuple[int, str]:
    """Tokens after which a row is cut, and why: as was asked, else as the run had it, and never more
    than the model has positions.

    Raises:
        ConfigError: `data.max_length` is more than the model's positions.
    """
    refuse_beyond_positions(config, model)
    asked = config.data.max_length
    trained = record_of(folder).max_length if folder else None
    bounds = {"the model's positions end": model.max_positions, "longer rows are not taken": LONGEST}
    if isinstance(asked, int):
        bounds["data.max_length says so"] = asked
    elif trained is not None:
        bounds["the adapter was trained on rows cut there"] = trained
    return min(((bound, why) for why, bound in bounds.items() if bound), key=lambda one: one[0])


def cut_note(cut: int, rows: int, length: int, why: str) -> str:
    """What a person should know of rows that were cut."""
    return f"{cut:,} of {rows:,} rows were cut at {length:,} tokens, since {why}"


def _headless(model: ModelFacts, folder: Path | None) -> str:
    name = model.name_or_path
    return f"{name} has no" if folder is None else f"neither the adapter nor {name} has a"


@torch.no_grad()
def _sums(model: Any, base: Base, data: Encoded, objective: Any) -> RowSums:
    """Row sums of a plain (PEFT or bare) model, shortest rows first."""
    table = RowTable(data.train)
    for chosen in by_length(data.train):
        batch = collate([data.train[i] for i in chosen], base.pad_id, base.task).to(base.model.device)
        table.put(chosen, on_host(objective.rows(model, batch)), batch.on_host.labels)
    return table.sums()


def _texts(model: Any, base: Base, data: Encoded, max_new_tokens: int) -> tuple[list[str], list[str]]:
    """What the model writes for each row, and what the row has."""
    exercises = [exercise(row.sides[0], data.task) for row in data.train]
    found = written(
        model,
        exercises,
        base.tokenizer,
        task=data.task,
        pad_id=base.pad_id,
        max_new_tokens=max_new_tokens,
    )
    return found, [
        base.tokenizer.decode(one.wanted, skip_special_tokens=True).strip() for one in exercises
    ]
