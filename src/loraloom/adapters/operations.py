"""What is done to each tensor of a base, as values: listed and checked before one byte is written."""

from __future__ import annotations

import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from loraloom.adapters.folder import refuse_full, refuse_taken, unfinished
from loraloom.adapters.form import EVERY, Factor
from loraloom.adapters.shards import (
    CODES,
    INDEX,
    Entry,
    Stored,
    bytes_of,
    write_file,
)
from loraloom.errors import ModelError, RequestError

SPARE_BYTES = 2**20
"""For config, tokenizer and proof beside the weights."""
PIECE = 2**22
"""Numbers of a tensor that are computed at once, in whole rows."""


class Change(ABC):
    """A tensor that is to be written, and what becomes of it."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]: ...

    @abstractmethod
    def rows(self, part: slice) -> Tensor:
        """Some of its rows."""

    def value(self) -> Tensor:
        """All of its numbers."""
        return self.rows(EVERY)

    def pieces(self) -> Iterator[Tensor]:
        """Its numbers, some rows at a time; about as many each time, for a product of few rows is
        computed by another kernel."""
        count = self.shape[0] if self.shape else 0
        pieces = max(1, min(count, -(-torch.Size(self.shape).numel() // PIECE)))
        edges = [count * number // pieces for number in range(pieces + 1)]
        if pieces == 1:
            yield self.value()
            return
        for start, stop in pairwise(edges):
            yield self.rows(slice(start, stop))


@dataclass(frozen=True)
class Copy(Change):
    """The tensor as it is."""

    stored: Stored

    @property
    def name(self) -> str:
        return self.stored.name

    @property
    def shape(self) -> tuple[int, ...]:
        return self.stored.shape

    def rows(self, part: slice) -> Tensor:
        return _read(self.stored, part)

    def words(self) -> str:
        return f"copy     {self.name}"


@dataclass(frozen=True)
class Patch(Change):
    """The tensor with an update added, in float32.

    Attributes:
        transposed: kept as in x out.
        replaced: what stands in place of the base's numbers, where the adapter brings them along.
    """

    stored: Stored
    factor: Factor
    transposed: bool
    replaced: Tensor | None = None

    @property
    def name(self) -> str:
        return self.stored.name

    @property
    def shape(self) -> tuple[int, ...]:
        return self.stored.shape if self.replaced is None else tuple(self.replaced.shape)

    def rows(self, part: slice) -> Tensor:
        """PEFT's merge in PEFT's order of steps, so that not a bit differs.

        With DoRA (arXiv:2402.09353) each row of the sum [O, D] gets its trained norm.
        """
        magnitude_O = self.factor.magnitude_O
        if magnitude_O is not None and self.transposed and part != EVERY:
            return self.value()[part]  # norms of columns need all rows
        total = self._before(part).add_(self.factor.update(part, transposed=self.transposed))
        if magnitude_O is None:
            return total
        if self.transposed:
            return total * (magnitude_O / torch.linalg.norm(total.T, dim=1))
        return total * (magnitude_O[part] / torch.linalg.norm(total, dim=1))[:, None]

    def _before(self, part: slice) -> Tensor:
        """In float32, in memory of its own."""
        if self.replaced is not None:
            return self.replaced[part].to(torch.float32, copy=True)
        return _read(self.stored, part).to(torch.float32)

    def words(self) -> str:
        dora = ", DoRA" if self.factor.magnitude_O is not None else ""
        return f"patch    {self.name}  r {self.factor.rank}, scale {self.factor.scale:.3g}{dora}"


@dataclass(frozen=True)
class PatchRows(Change):
    """The tensor with the rows of some tokens put in the place of its own."""

    stored: Stored
    tokens: tuple[int, ...]
    trained: Tensor

    @property
    def name(self) -> str:
        return self.stored.name

    @property
    def shape(self) -> tuple[int, ...]:
        return self.stored.shape

    def rows(self, part: slice) -> Tensor:
        first, end, _ = part.indices(self.shape[0])
        weight = _read(self.stored, part).to(torch.float32)
        for token, row in zip(self.tokens, self.trained, strict=True):
            if first <= token < end:
                weight[token - first] = row
        return weight

    def words(self) -> str:
        return f"patch    {self.name}  {len(self.tokens)} rows"


@dataclass(frozen=True)
class Replace(Change):
    """Another tensor in the place of the base's."""

    stored: Stored
    tensor: Tensor

    @property
    def name(self) -> str:
        return self.stored.name

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    def rows(self, part: slice) -> Tensor:
        return self.tensor if part == EVERY else self.tensor[part]

    def words(self) -> str:
        return f"replace  {self.name}"


@dataclass(frozen=True)
class Add(Change):
    """A tensor that the base does not have: a classifier's head."""

    name: str
    tensor: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    def rows(self, part: slice) -> Tensor:
        return self.tensor if part == EVERY else self.tensor[part]

    def words(self) -> str:
        return f"add      {self.name}"


@dataclass(frozen=True)
class Untie(Change):
    """A tensor of its own for a name that shared another's; `source` says what it becomes."""

    name: str
    source: Copy | Patch | PatchRows | Replace

    @property
    def shape(self) -> tuple[int, ...]:
        return self.source.shape

    def rows(self, part: slice) -> Tensor:
        return self.source.rows(part)

    def words(self) -> str:
        return f"untie    {self.name} from {self.source.name}"


Operation = Copy | Patch | PatchRows | Replace | Add | Untie


@dataclass(frozen=True)
class Plan:
    """All that is to be written.

    Attributes:
        files: operations of each weight file, in the order of its tensors.
        config: config.json.
        beside: further files by name, and where each is copied from.
        dtype: of every floating number; None keeps what each tensor has.
        default: what a tensor gets that the base does not have.
    """

    files: Mapping[str, Sequence[Operation]]
    config: Mapping[str, Any]
    beside: Mapping[str, Path]
    dtype: torch.dtype | None
    default: torch.dtype

    @property
    def operations(self) -> list[Operation]:
        return [operation for operations in self.files.values() for operation in operations]

    @property
    def changes(self) -> list[Operation]:
        """What is more than a copy."""
        return [one for one in self.operations if not isinstance(one, Copy)]

    @property
    def bytes(self) -> int:
        return sum(self.entry(operation).bytes for operation in self.operations)

    def entry(self, operation: Operation) -> Entry:
        """The tensor that an operation writes."""
        return Entry(operation.name, CODES[self.written_as(operation)], operation.shape)

    def written_as(self, operation: Operation) -> torch.dtype:
        """The type that an operation's tensor is rounded to."""
        stored = None if isinstance(operation, Add | Untie) else operation.stored
        own = self.default if stored is None else stored.dtype
        return self.dtype if self.dtype is not None and own.is_floating_point else own


def check(plan: Plan, out: Path) -> None:
    """See that a plan can be carried out, before anything is written.

    Raises:
        RequestError: it changes nothing, the place is taken, or the disk has no room.
    """
    if not plan.changes:
        raise RequestError(
            "the adapter changes nothing",
            need="at least one layer with an update",
            next="train it again",
        )
    refuse_taken(out)
    refuse_full(out, plan.bytes + SPARE_BYTES)


def apply(plan: Plan, out: Path) -> Path:
    """Carry a plan out beside its place; `folder.finish` puts it there.

    Returns:
        The folder with all files, still under its other name.

    Raises:
        RequestError: the disk refuses; what was written is removed.
        ModelError: a number does not fit into the type that it is rounded to.
    """
    with unfinished(out) as partial:
        for name, operations in plan.files.items():
            entries = [plan.entry(operation) for operation in operations]
            contents = {one.name: _contents(plan, one) for one in operations}
            write_file(partial / name, entries, contents)
        _write_index(plan, partial)
        for name, source in plan.beside.items():
            shutil.copyfile(source, partial / name)
        text = json.dumps(plan.config, indent=2, ensure_ascii=False) + "\n"
        (partial / "config.json").write_text(text, encoding="utf-8")
    return partial


def _contents(plan: Plan, operation: Operation) -> Iterator[bytes]:
    """The bytes of one tensor, computed when they are asked for and rounded once."""
    dtype = plan.written_as(operation)
    if isinstance(operation, Copy) and operation.stored.dtype == dtype:
        yield from operation.stored.chunks()
        return
    for piece in operation.pieces():
        value = piece.to(dtype)
        if value.is_floating_point() and not value.isfinite().all():
            raise ModelError(
                f"`{operation.name}` has numbers that {str(dtype).removeprefix('torch.')} does not hold",
                need="finite numbers",
                next="--dtype bfloat16 or --dtype float32",
            )
        yield bytes_of(value)


def _read(stored: Stored, part: slice) -> Tensor:
    return (stored if part == EVERY else stored.rows(part)).read()


def _write_index(plan: Plan, folder: Path) -> None:
    """Which file holds which tensor, where there is more than one file."""
    if len(plan.files) < 2:
        return
    index = {
        "metadata": {"total_size": plan.bytes},
        "weight_map": {one.name: file for file, operations in plan.files.items() for one in operations},
    }
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
