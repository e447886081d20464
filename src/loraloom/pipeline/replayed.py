"""Rows of `data.replay`: trained on beside the task's own, a share of every batch, so that a model goes
on being able to do what it could. Some are held out: on them is measured what is forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from loraloom.config import names
from loraloom.config.asked import Config
from loraloom.data.classes import Known
from loraloom.data.deduplicate import without_duplicates
from loraloom.data.encode import Encoded, Row, encode
from loraloom.data.load import load_table
from loraloom.data.mix import REPLAY
from loraloom.data.recognise import Recognised, recognise
from loraloom.data.rows import identity, sides_of
from loraloom.data.split import Splits, labels_of, split
from loraloom.data.table import Table, counted
from loraloom.errors import ConfigError, DataError
from loraloom.pipeline.retained import named
from loraloom.records import COMPARED, Task

HELD_OUT, MOST_HELD_OUT = 0.2, 256
"""Share of the rows that are held out, and how many at most: enough to tell settings apart by what they
forget, and few to score."""
FEWEST = 10


@dataclass(frozen=True)
class ReplayTables:
    """The rows to replay (train) and those held out (validation), as they were read."""

    splits: Splits
    recognised: Recognised

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes of a classification task; none of any other."""
        if self.recognised.task != "seq_cls":
            return ()
        return labels_of(self.splits.train, self.recognised)


@dataclass(frozen=True)
class Replay:
    """Rows that are trained on beside the task's own, rows that never are, and what a person should
    know of them."""

    rows: tuple[Row, ...] = ()
    held_out: tuple[Row, ...] = ()
    notes: tuple[str, ...] = ()


def read_replay(config: Config, task: Task) -> ReplayTables | None:
    """The rows of `data.replay`; None where none are asked for.

    Args:
        task: of the training rows.

    Raises:
        ConfigError: what is forgotten could not be measured.
        DataError: the rows cannot be read, or are too few.
    """
    data = config.data
    if data.replay is None:
        _refuse_share(config)
        return None
    if not config.diagnose.signals:
        raise ConfigError(
            "`data.replay` holds rows out to measure what is forgotten, and `diagnose.signals: false`"
            " measures nothing",
            next="leave `diagnose.signals` out",
        )
    if task in COMPARED:
        raise ConfigError(
            "`data.replay` has rows that are learnt, and this run learns which answer is preferred",
            next="leave `data.replay` out"
            + ("" if task == "reward" else "; `data.retain` measures what is forgotten"),
        )
    table = load_table(data.replay, seed=config.training.seed)
    if len(table) < FEWEST:
        raise DataError(
            f"`data.replay` has {counted(len(table), 'row')}",
            where=table.source,
            need=f"at least {FEWEST}: some are held out to measure what is forgotten",
            next="name a larger file, or leave `data.replay` out",
        )
    known = set(table.columns)
    asked = replace(
        data,
        train=data.replay,
        mix=None,
        format="auto",
        learn="auto",
        text_column=data.text_column if data.text_column in known else None,
        label_column=data.label_column if data.label_column in known else None,
    )
    with named(names.REPLAY):
        recognised = recognise(table, asked, task, encoder_decoder=task == "seq2seq_lm")
    table = without_duplicates(table, recognised, data.deduplicate)
    return ReplayTables(_splits(table, recognised, config), recognised)


def _refuse_share(config: Config) -> None:
    """Raises ConfigError for a share of nothing."""
    share, space = config.data.replay_share, config.search.space
    if share not in ("auto", 0) or (space != "auto" and names.REPLAY_SHARE in space):
        raise ConfigError(
            f"`{names.REPLAY_SHARE}` is the share of rows that `{names.REPLAY}` has to name",
            next=f"--set {names.REPLAY}=FILE",
        )


def _splits(table: Table, recognised: Recognised, config: Config) -> Splits:
    """All rows to replay where `data.retain` is what is measured, else some of them held out."""
    if config.data.retain is not None:
        return Splits(table)
    share = min(HELD_OUT, MOST_HELD_OUT / len(table))
    return split(table, share, None, recognised, seed=config.training.seed)


def encode_replay(read: ReplayTables, data: Encoded, tokenizer: Any) -> Encoded:
    """The rows to replay as the model reads them, at full length. A classifier's have the classes of
    `data`, among which theirs are."""
    known = Known(data.label_names, "the training data") if data.label_names else None
    with named(names.REPLAY):
        return encode(read.splits, read.recognised, tokenizer, data.task, known)


def replay_beside(encoded: Encoded, data: Encoded, retain: Sequence[Row]) -> Replay:
    """What of these rows may be replayed: none that is measured anywhere; and what of those held out is
    trained on nowhere.

    Args:
        encoded: of `encode_replay`, cut.
        data: the task's rows, cut.
        retain: rows of `data.retain`.

    Raises:
        DataError: nothing is left to replay.
    """
    task = data.task
    measured = {identity(row, task) for row in (*data.validation, *data.confirm, *data.test, *retain)}
    trained = {identity(row, task) for row in data.train}
    rows = sides_of(row for row in encoded.train if identity(row, task) not in measured)
    held_out = sides_of(row for row in encoded.validation if identity(row, task) not in trained)
    if not rows:
        raise DataError(
            "nothing is left of `data.replay` to train on",
            got=f"{counted(len(encoded.train), 'row')}, all in data.retain or in a held-out split",
            next="name other rows to replay than those that are measured",
        )
    notes: list[str] = []
    if left_out := len(encoded.train) - len(rows):
        notes.append(
            f"{counted(left_out, 'row')} of data.replay are in data.retain or in a held-out split, and"
            " are not trained on"
        )
    if held_out:
        notes.append(
            f"{counted(len(held_out), 'row')} of data.replay are held out: on them is measured what is"
            " forgotten"
        )
    return Replay(tuple(replace(row, source=REPLAY) for row in rows), held_out, tuple(notes))
