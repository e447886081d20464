"""The rows of `data.train` as every verb reads them: from all sources, in one format, and without
duplicates where that is asked for."""

from __future__ import annotations

from functools import partial

from loraloom.config.asked import Config, DataConfig
from loraloom.config.sources import mixed_sources
from loraloom.data.causal import has_template
from loraloom.data.deduplicate import without_duplicates
from loraloom.data.recognise import Recognised
from loraloom.data.sources import load_training
from loraloom.data.table import Table, listed
from loraloom.errors import ConfigError, DataError
from loraloom.lora.base import load_tokenizer


def training_rows(
    config: Config, split: str = "train", *, encoder_decoder: bool
) -> tuple[Table, Recognised]:
    """The table of training rows, and what it was recognised as.

    Args:
        split: which part is read of a source that has several.

    Raises:
        ConfigError: sources cannot be mixed as asked, or a setting says something of what the rows do
            not have.
        DataError: the rows cannot be read, or a source has none left.
    """
    data = config.data
    table, recognised = load_training(
        data,
        config.task,
        partial(_has_template, config),
        split=split,
        encoder_decoder=encoder_decoder,
        seed=config.training.seed,
    )
    _refuse_unread(data, recognised)
    table = without_duplicates(table, recognised, data.deduplicate)
    left = set(table.parts)
    empty = [one for one in mixed_sources(data) if one.name not in left]
    if empty:
        why = "data.deduplicate leaves none of them" if data.deduplicate else "data.max_rows took others"
        raise DataError(
            f"{listed(one.source for one in empty)} has no row to train on: {why}",
            need="a row of every source that is mixed",
            next="leave it out of `data.train`",
        )
    return table, recognised


def _refuse_unread(data: DataConfig, recognised: Recognised) -> None:
    """Raises ConfigError for what is asked of classes or messages that rows do not have."""
    if data.label_names and recognised.task != "seq_cls":
        raise ConfigError(
            f"`data.label_names` names classes, and the task is {recognised.task}",
            next="leave `data.label_names` out, or set `task: seq_cls`",
        )
    if data.system == "auto":
        return
    if recognised.task in ("seq_cls", "seq2seq_lm") or recognised.format == "text":
        raise ConfigError(
            f"`data.system` is {data.system}, but rows of the format {recognised.format} for"
            f" {recognised.task} are no messages",
            next="leave `data.system` out, or write the rows as messages",
        )


def _has_template(config: Config) -> bool:
    model = config.model
    if model.name_or_path is None:
        return False
    return has_template(
        load_tokenizer(
            model.name_or_path, revision=model.revision, trust_remote_code=model.trust_remote_code
        )
    )
