"""What the data is: rows, tokens, lengths and balance of the classes, from rows that
are already encoded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from loraloom.data.mix import Part
from loraloom.data.rows import Judged, length_of, sides_of
from loraloom.records import COMPARED, Task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loraloom.data.rows import Encoded, Example

PERCENTILES = (10, 25, 50, 60, 70, 80, 90, 95, 99)


@dataclass(frozen=True)
class DataFacts:
    """Counts of the training rows, unless a name says otherwise. Lengths are tokens."""

    task: Task
    rows: int
    tokens: int
    supervised_tokens: int
    """Labels that a loss is formed on; of a classifier, one a row."""
    mean_length: float
    longest: int
    percentiles: dict[int, int] = field(default_factory=dict[int, int])
    """Length that this share (in %) of the rows does not exceed."""
    longest_anywhere: int = 0
    """Longest row of any split: what evaluation has to hold."""
    format: str = ""
    validation_rows: int = 0
    confirm_rows: int = 0
    test_rows: int = 0
    validation_tokens: int = 0
    label_names: tuple[str, ...] = ()
    label_counts: tuple[int, ...] = ()
    judged: tuple[int, int] | None = None
    """Answers that are good, and that are bad, where rows say so of single answers (KTO)."""
    repeated_rows: int = 0
    """Training rows that are the same as an earlier one."""
    notes: tuple[str, ...] = ()
    """How the rows were read, where a person should know (`Encoded.notes`)."""
    leaked_rows: int = 0
    """Held-out rows whose content is also trained on."""
    overlaps: tuple[str, ...] = ()
    """Held-out rows that are related to rows that are trained on, one sentence a split
    and kind of relation."""
    parts: tuple[Part, ...] = ()
    """The sources that are mixed; empty where nothing is."""
    replay_rows: int = 0
    """Rows that may be trained on beside these, a share of every batch."""
    rows_left_out: int = 0
    """Rows of any split that nothing can be learnt from: an empty answer, or no label."""
    supervised_lost: float = 0.0
    """Share of the supervised tokens that truncation has already taken."""
    sides: int = 1
    """Rows of one example: 2 of a pair of answers. `rows` counts examples, lengths are those of a
    side."""
    measured: bool = True
    """False for an assumption that stands in where no data was given."""

    @property
    def split_rows(self) -> dict[str, int]:
        """Rows by split, empty ones left out."""
        counts = (self.rows, self.validation_rows, self.confirm_rows, self.test_rows)
        return {
            name: count
            for name, count in zip(("train", "validation", "confirm", "test"), counts, strict=True)
            if count
        }

    @property
    def epoch_rows(self) -> float:
        """How many rows one epoch takes, replay apart."""
        return sum(part.amount for part in self.parts) or float(self.rows)

    @property
    def majority_share(self) -> float:
        """Share of the most frequent class: the accuracy of always naming it."""
        return max(self.label_counts) / sum(self.label_counts) if sum(self.label_counts) else 0.0

    def share_above(self, length: int) -> float:
        """About which share of rows is longer than `length`, from the percentiles."""
        if length >= self.longest:
            return 0.0
        return (
            100
            - max((share for share, tokens in self.percentiles.items() if tokens <= length), default=0)
        ) / 100


def data_facts(encoded: Encoded) -> DataFacts:
    """Measure encoded data; lengths are what `data.max_length` is held against."""
    lengths = _lengths(encoded.train, encoded.task)
    held_out = _lengths([*encoded.validation, *encoded.confirm, *encoded.test], encoded.task)
    names = tuple(encoded.label_names or ())
    report = encoded.report.get("train")
    return DataFacts(
        task=encoded.task,
        format=encoded.format,
        rows=len(encoded.train),
        tokens=_tokens(encoded.train, encoded.task),
        supervised_tokens=sum(row.supervised for row in encoded.train),
        mean_length=float(lengths.mean()) if len(lengths) else 0.0,
        longest=int(lengths.max(initial=0)),
        percentiles=(
            {share: int(np.percentile(lengths, share, method="higher")) for share in PERCENTILES}
            if len(lengths)
            else {}
        ),
        longest_anywhere=int(max(lengths.max(initial=0), held_out.max(initial=0))),
        sides=max((len(one.sides) for one in encoded.train), default=1),
        validation_rows=len(encoded.validation),
        confirm_rows=len(encoded.confirm),
        test_rows=len(encoded.test),
        validation_tokens=_tokens(encoded.validation, encoded.task),
        label_names=names,
        label_counts=_label_counts(encoded.train, len(names)) if encoded.task == "seq_cls" else (),
        judged=_judged(encoded.train),
        repeated_rows=_repeated(encoded.train),
        notes=encoded.notes,
        leaked_rows=encoded.duplicates,
        overlaps=tuple(each.sentence for each in encoded.overlaps),
        rows_left_out=sum(each.dropped for each in encoded.report.values()),
        supervised_lost=report.share_lost if report else 0.0,
    )


def assumed_data(task: Task) -> DataFacts:
    """A stand-in where no data was given: ten thousand rows of middling length. The
    plan says that it is assumed."""
    length = 64 if task == "seq_cls" else 512
    rows = 10_000
    sides = 2 if task in COMPARED else 1
    return DataFacts(
        task=task,
        rows=rows,
        tokens=sides * rows * length,
        supervised_tokens=rows if task == "seq_cls" else sides * rows * length // 2,
        mean_length=float(length),
        longest=2 * length,
        percentiles={50: length, 90: 3 * length // 2, 95: 7 * length // 4, 99: 2 * length},
        longest_anywhere=2 * length,
        validation_rows=rows // 10,
        validation_tokens=sides * rows // 10 * length,
        sides=sides,
        measured=False,
    )


def _lengths(rows: Sequence[Example], task: Task) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array([length_of(row, task) for row in sides_of(rows)], dtype=np.int64)


def _tokens(rows: Sequence[Example], task: Task) -> int:
    return sum(
        len(row.input_ids) + (len(row.labels) if task == "seq2seq_lm" else 0) for row in sides_of(rows)
    )


def _label_counts(rows: Sequence[Example], classes: int) -> tuple[int, ...]:
    labels = np.array([int(row.labels[0]) for row in sides_of(rows)], dtype=np.int64)
    return tuple(int(count) for count in np.bincount(labels, minlength=classes))


def _judged(rows: Sequence[Example]) -> tuple[int, int] | None:
    verdicts = [row.good for row in rows if isinstance(row, Judged)]
    return (verdicts.count(True), verdicts.count(False)) if verdicts else None


def _repeated(rows: Sequence[Example]) -> int:
    return len(rows) - len({_key(row) for row in rows})


def _key(example: Example) -> tuple[object, ...]:
    """Equal for rows that teach the same."""
    sides = tuple((bytes(row.input_ids), bytes(row.labels)) for row in example.sides)
    return (*sides, getattr(example, "good", None))
