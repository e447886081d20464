"""When pairs of answers are rows of a reward model, and no preferences of a language model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from loraloom.data.classes import Known
from loraloom.data.preference_columns import refuse_judged
from loraloom.data.recognise import Recognised
from loraloom.data.table import Table
from loraloom.errors import ConfigError
from loraloom.facts.model import ModelFacts
from loraloom.lora.state import PEFT_TASKS
from loraloom.lora.untrusted_adapter import read_adapter_config


def why_rewards(model: ModelFacts, folder: Path | None = None) -> str | None:
    """Why this model, with the adapter in a folder, is one that scores answers; None for one that
    writes them."""
    if folder is not None:
        scores = read_adapter_config(folder).get("task_type") == PEFT_TASKS["reward"]
        return "the adapter is of a classifier, and writes nothing" if scores else None
    if model.kind == "encoder":
        return f"{model.name_or_path} is an encoder, and writes nothing"
    if model.task == "seq_cls" and len(model.classes) == 1:
        return f"{model.name_or_path} has a head with one output"
    return None


def as_rewards(recognised: Recognised, table: Table, asked: str, why: str | None) -> Recognised:
    """What was recognised, with preferences for rows of a reward model where there is a reason, and no
    other task was asked for.

    Raises:
        DataError: the answers were judged one by one.
    """
    if asked != "auto" or recognised.task != "preference" or why is None:
        return recognised
    if recognised.format == "kto":
        refuse_judged(table, recognised.columns["verdict"])
    notes = (f"pairs are read for a reward model (task: reward): {why}", *recognised.notes)
    return replace(recognised, task="reward", notes=notes)


def one_output(known: Known | None, model: ModelFacts, folder: Path | None) -> Known | None:
    """What a head that scores answers is called; None for a base without such a head.

    Args:
        known: as of `classes_to_score`.
        folder: of the adapter.

    Raises:
        ConfigError: the adapter's head has several outputs.
    """
    if known is None or len(known.names) == 1:
        return known
    if folder is None:
        return None
    raise ConfigError(
        "the adapter tells classes apart, and a reward model has one output",
        where=str(folder),
        got=f"a head with {len(known.names)} outputs over {model.name_or_path}",
        next="name an adapter that was trained with task: reward, or give rows of a text and a label",
    )
