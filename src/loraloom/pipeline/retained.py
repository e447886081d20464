"""Rows of what a model should still be able to do after training: read like training
rows, never trained on."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from loraloom.config.asked import Config
from loraloom.data.encode import Encoded, Row, encode
from loraloom.data.load import load_table
from loraloom.data.recognise import recognise
from loraloom.data.rows import sides_of
from loraloom.data.split import Splits
from loraloom.errors import ConfigError, DataError
from loraloom.records import Task, built_as

RETAIN_ROWS = 64
"""Enough for a standard error of a few hundredths of a nat, and few beside the training."""


@contextmanager
def named(key: str) -> Generator[None]:
    """A fault of rows that are no training rows says under which key they stand."""
    try:
        yield
    except DataError as error:
        raise type(error)(
            f"`{key}`: {error.what}",
            got=error.got,
            need=error.need,
            next=error.next,
            where=error.where,
        ) from error


def retained_rows(config: Config, data: Encoded, tokenizer: Any, max_length: int) -> tuple[Row, ...]:
    """The rows of `data.retain`, encoded as the task's rows are.

    Raises:
        ConfigError: the task has no general rows to keep.
        DataError: the rows cannot be read.
    """
    if config.data.retain is None:
        return ()
    if built_as(data.task) == "seq_cls":
        raise ConfigError(
            "`data.retain` measures what a language model still knows",
            got=f"the task {data.task}",
            next="leave `data.retain` out",
        )
    table = load_table(config.data.retain, max_rows=RETAIN_ROWS, seed=config.training.seed)
    asked = replace(config.data, train=config.data.retain, mix=None, learn="auto")
    if data.task == "preference":
        asked = replace(asked, format="auto")
    # What a model is to keep is what it writes, whatever it learns here.
    task: Task = "seq2seq_lm" if data.task == "seq2seq_lm" else "causal_lm"
    with named("data.retain"):
        recognised = recognise(table, asked, task, encoder_decoder=task == "seq2seq_lm")
        rows = encode(Splits(table), recognised, tokenizer, task).cut(max_length).train
    return sides_of(rows[:RETAIN_ROWS])
