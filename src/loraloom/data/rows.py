"""Rows ready for a model, and what can still be done to them without a tokenizer: measure and cut."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from loraloom.data.overlap import Overlap
from loraloom.errors import ConfigError, DataError
from loraloom.records import RowLoss, Task, built_as

IGNORED = -100
"""Label of a token that is not supervised, as in transformers."""

Ints = NDArray[np.int32]


@dataclass(frozen=True, eq=False, slots=True)
class Row:
    """One example. `input_ids` int32 [T].

    `labels` int32: causal_lm [T], not shifted, -100 where not supervised, the first one always; seq_cls
    [1], the number of the class; seq2seq_lm [U], the ids that the decoder has to make. `cluster`: the
    same number for rows of one text, conversation or group, which are one draw in every standard error;
    negative for a row that stands alone.

    `loss`: what is formed of it. Losses of the kind "nll" are averaged over all supervised tokens of
    a step; a row of another kind adds its own mean per token, times its `weight`.

    `source`: the name of the source that it is from, where several are mixed.
    """

    input_ids: Ints
    labels: Ints
    cluster: int = -1
    loss: RowLoss = "nll"
    weight: float = 1.0
    source: str = ""

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def supervised(self) -> int:
        """How many labels this row is trained on."""
        return int(np.count_nonzero(self.labels != IGNORED))

    @property
    def sides(self) -> tuple[Row, ...]:
        """What goes through the model for it: a row itself."""
        return (self,)


@dataclass(frozen=True, eq=False, slots=True)
class Pair:
    """Two answers to one prompt, of which the first is preferred: one example of order, batch and score.

    Both rows begin with the prompt's tokens, whose labels are -100. `margin`: by how much the first is
    better, where the data say so. `cluster` and `source` as of a row; its sides' own are not looked at.
    """

    chosen: Row
    rejected: Row
    margin: float = 0.0
    cluster: int = -1
    source: str = ""

    def __len__(self) -> int:
        """Tokens of both sides."""
        return len(self.chosen) + len(self.rejected)

    @property
    def supervised(self) -> int:
        """Labels of both sides; 0 where one of them has none, or the two are the same: then there is
        nothing to choose."""
        counts = [side.supervised for side in self.sides]
        same = np.array_equal(self.chosen.input_ids, self.rejected.input_ids)
        return sum(counts) if all(counts) and not same else 0

    @property
    def sides(self) -> tuple[Row, ...]:
        return (self.chosen, self.rejected)

    @property
    def side_names(self) -> tuple[str, ...]:
        """The fields that `sides` are."""
        return ("chosen", "rejected")


@dataclass(frozen=True, eq=False, slots=True)
class Judged:
    """One answer, and whether it is a good one (KTO). `cluster` and `source` as of a row."""

    row: Row
    good: bool
    cluster: int = -1
    source: str = ""

    def __len__(self) -> int:
        return len(self.row)

    @property
    def supervised(self) -> int:
        return self.row.supervised

    @property
    def sides(self) -> tuple[Row, ...]:
        return (self.row,)

    @property
    def side_names(self) -> tuple[str, ...]:
        """The fields that `sides` are."""
        return ("row",)


Example = Row | Pair | Judged
"""What order, micro-batch, split and score count as one."""


def sides_of(examples: Iterable[Example]) -> tuple[Row, ...]:
    """All that goes through the model for these examples, one behind the other."""
    return tuple(side for example in examples for side in example.sides)


def causal_row(ids: Sequence[int], supervised: NDArray[np.bool_]) -> Row:
    """A row that learns the tokens marked in `supervised` [T]; nothing stands before
    the first, so it is never one."""
    input_ids = np.asarray(ids, dtype=np.int32)
    labels = np.where(supervised, input_ids, np.int32(IGNORED))
    labels[:1] = IGNORED
    return Row(input_ids, labels)


@dataclass(frozen=True)
class SplitReport:
    """What became of the rows of one split. `supervised` counts tokens (classification: rows)."""

    rows: int = 0
    tokens: int = 0
    supervised: int = 0
    longest: int = 0
    dropped: int = 0
    """Rows left out, because nothing in them is supervised: an empty answer, or a label
    that is null, blank or NaN."""
    same: int = 0
    """Held-out rows left out, because to the model they are a row of an earlier split."""
    cut: int = 0
    """Rows shortened by `max_length`. Raw text is not shortened but divided."""
    supervised_lost: int = 0

    @property
    def share_lost(self) -> float:
        """Supervised tokens lost to `max_length`, as a share of those there were."""
        return self.supervised_lost / max(1, self.supervised + self.supervised_lost)


@dataclass(frozen=True)
class Encoded:
    """All splits as rows of token ids."""

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    confirm: tuple[Example, ...]
    test: tuple[Example, ...]
    task: Task
    format: str
    label_names: tuple[str, ...] | None = None
    """Name of each class, by its number."""
    report: Mapping[str, SplitReport] = field(default_factory=dict[str, SplitReport])
    given: frozenset[str] = frozenset()
    """Splits that have a source of their own; their rows are never left out for being
    repeats, only counted."""
    repeated: Mapping[str, int] = field(default_factory=dict[str, int])
    """Held-out split -> its rows that are also in an earlier split
    (`split.Splits.repeated`, or the same token ids)."""
    overlaps: tuple[Overlap, ...] = ()
    """Held-out rows that are related to rows of an earlier split: the same prompt,
    nearly the same text."""
    notes: tuple[str, ...] = ()
    """What a person should know of how the rows were read: `Table.notes`,
    `Recognised.notes`, and what encoding found."""
    closing: tuple[int, ...] = ()
    """Ids that must stay at the end of a shortened input or target ([SEP], EOS)."""

    @property
    def splits(self) -> dict[str, tuple[Example, ...]]:
        return {
            "train": self.train,
            "validation": self.validation,
            "confirm": self.confirm,
            "test": self.test,
        }

    @property
    def duplicates(self) -> int:
        """Held-out rows that are also trained on (in test, or chosen on)."""
        return sum(self.repeated.values())

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each training row, [rows]."""
        return np.array([len(row) for row in self.train], dtype=np.int64)

    def cut(self, max_length: int) -> Encoded:
        """The same data with no row above `max_length` tokens.

        Raw text is divided into windows, each beginning with the last token of the one before, so that
        every token is still predicted once. Other rows keep their front (and their closing tokens), and
        so does each side of a pair. A row that loses all it is trained on is dropped and counted, and so
        is a pair that loses what its sides differ in.

        Raises:
            ConfigError: `max_length` is too small for any row.
            DataError: nothing is left to train on, or to measure on.
        """
        least = 2 + len(self.closing)
        if max_length < least:
            raise ConfigError(
                f"`data.max_length` is {max_length} but must be at least {least}",
                next="leave it at auto",
            )
        splits = {
            name: [self._cut(row, max_length, number) for number, row in enumerate(rows)]
            for name, rows in self.splits.items()
        }
        supervised = {
            name: tuple(row for cut in rows for row in cut if row.supervised)
            for name, rows in splits.items()
        }
        for name, rows in self.splits.items():
            if rows and not supervised[name]:
                first = min(_first(row) for row in sides_of(rows))
                longest = max(len(row) for row in sides_of(rows))
                raise DataError(
                    f"no {name} row has a supervised token within `data.max_length` = {max_length}",
                    got=f"a first supervised token at position {first} at the earliest",
                    next=f"raise `data.max_length`; the longest row has {longest} tokens",
                )
        # rows that differ behind the cut alone are the same now
        kept, _ = told_apart(supervised, self.task, self.given)
        report = {
            name: self._cut_report(name, splits[name], kept[name], max_length) for name in self.report
        }
        return replace(self, **kept, report=report)

    def _cut(self, example: Example, size: int, number: int) -> Sequence[Example]:
        if isinstance(example, Row):
            return self._cut_row(example, size, number)
        sides = [side for one in example.sides for side in self._cut_row(one, size, number)]
        return [replace(example, **dict(zip(example.side_names, sides, strict=True)))]

    def _cut_row(self, row: Row, size: int, number: int) -> list[Row]:
        if self.format == "text" and self.task != "reward":
            return _windows(row, size, number if row.cluster < 0 else row.cluster)
        if built_as(self.task) == "causal_lm":
            return [replace(row, input_ids=row.input_ids[:size], labels=row.labels[:size])]
        labels = row.labels if self.task == "seq_cls" else _front(row.labels, size, self.closing)
        return [replace(row, input_ids=_front(row.input_ids, size, self.closing), labels=labels)]

    def _cut_report(
        self, name: str, cuts: Sequence[Sequence[Example]], kept: Sequence[Example], size: int
    ) -> SplitReport:
        before = self.report[name]
        old = self.splits[name]
        supervised = [row.supervised for cut in cuts for row in cut if row.supervised]
        whole = self.format == "text"
        return SplitReport(
            **_measures(kept),
            dropped=before.dropped + sum(not any(row.supervised for row in cut) for cut in cuts),
            same=before.same + len(supervised) - len(kept),
            cut=before.cut + (0 if whole else sum(length_of(row, self.task) > size for row in old)),
            supervised_lost=before.supervised_lost + before.supervised - sum(supervised),
        )


def report_of(rows: Sequence[Example], *, dropped: int, same: int = 0) -> SplitReport:
    """The report of rows that nothing was cut from."""
    return SplitReport(**_measures(rows), dropped=dropped, same=same)


def length_of(example: Example, task: Task) -> int:
    """What `max_length` is held against: tokens of a row, of a translation those of the longer of source
    and target, of a pair those of the prompt with the longer answer."""
    both = task == "seq2seq_lm"
    return max(max(len(row), len(row.labels) if both else 0) for row in example.sides)


def told_apart(
    splits: Mapping[str, tuple[Example, ...]], task: Task, given: frozenset[str]
) -> tuple[dict[str, tuple[Example, ...]], dict[str, int]]:
    """The splits without held-out rows that are, token for token, rows of an earlier
    split; and how many are left that are.

    Where two splits were drawn from one table, such a row goes (a tokenizer may make no difference
    between texts that differ); where their sources were `given` apart, it stays and is counted.

    Raises:
        DataError: nothing would be left of a split.
    """
    places: dict[bytes, set[str]] = {}
    kept: dict[str, tuple[Example, ...]] = {}
    repeated: dict[str, int] = {}
    for name in ("train", "validation", "confirm", "test"):
        keys = [identity(row, task) for row in splits[name]]
        # Repeats are taken out only between splits that were drawn from one source.
        drawn_with = {other for other in kept if _source(other, given) == _source(name, given)}
        stays = [not drawn_with & places.get(key, set()) for key in keys]
        kept[name] = tuple(row for row, stay in zip(splits[name], stays, strict=True) if stay)
        if keys and not kept[name]:
            raise DataError(
                f"to the model, every {name} row is the same as a row of train",
                got=f"{len(keys):,} rows with the token ids of a row in an earlier split",
                next=f"raise `data.max_length` if it is set, or set `data.{name}` to a file",
            )
        repeated[name] = sum(stay and key in places for key, stay in zip(keys, stays, strict=True))
        for key in keys:
            places.setdefault(key, set()).add(name)
    return kept, {name: count for name, count in repeated.items() if count}


def _source(split: str, given: frozenset[str]) -> str:
    """Where the rows of a split are from. Confirm is half of validation."""
    if split not in given:
        return "train"
    return "validation" if split == "confirm" else split


def identity(example: Example, task: Task) -> bytes:
    """Equal for rows that the model cannot tell apart: by their input, of a translation by its target
    too, of a judged answer by its verdict."""
    digest = hashlib.blake2b(digest_size=16)
    for row in example.sides:
        digest.update(b"|" + row.input_ids.tobytes())
        if task == "seq2seq_lm":
            digest.update(b"|" + row.labels.tobytes())
    if isinstance(example, Judged):
        digest.update(bytes([example.good]))
    return digest.digest()


def _measures(rows: Sequence[Example]) -> dict[str, int]:
    return {
        "rows": len(rows),
        "tokens": sum(len(row) for row in rows),
        "supervised": sum(row.supervised for row in rows),
        "longest": max((len(row) for row in sides_of(rows)), default=0),
    }


def _windows(row: Row, size: int, cluster: int) -> list[Row]:
    if len(row) <= size:
        return [row]
    windows: list[Row] = []
    for start in range(0, len(row) - 1, size - 1):
        labels = row.labels[start : start + size].copy()
        labels[0] = IGNORED
        windows.append(Row(row.input_ids[start : start + size], labels, cluster, source=row.source))
    return windows


def _front(ids: Ints, size: int, closing: tuple[int, ...]) -> Ints:
    if len(ids) <= size:
        return ids
    keep = len(closing) if closing and tuple(ids[-len(closing) :]) == closing else 0
    return np.concatenate([ids[: size - keep], ids[len(ids) - keep :]])


def _first(row: Row) -> int:
    return int(np.argmax(row.labels != IGNORED)) + 1
