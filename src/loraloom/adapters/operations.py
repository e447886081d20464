"""What is done to each tensor of a base, as values: listed and checked before one byte is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from loraloom.adapters.folder import refuse_taken, unfinished
from loraloom.adapters.form import Factor
from loraloom.adapters.shards import (
    CODES,
    INDEX,
    Entry,
    Stored,
    bytes_of,
    write_file,
)
from loraloom.errors import ModelError, RequestError
from loraloom.store.disk import free_bytes

SPARE_BYTES = 2**20
"""For config, tokenizer and proof beside the weights."""


@dataclass(frozen=True)
class Copy:
    """The tensor as it is."""

    stored: Stored

    @property
    def name(self) -> str:
        return self.stored.name

    @property
    def shape(self) -> tuple[int, ...]:
        return self.stored.shape

    def value(self) -> Tensor:
        return self.stored.read()

    def words(self) -> str:
        return f"copy     {self.name}"


@dataclass(frozen=True)
class Patch:
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

    def value(self) -> Tensor:
        """PEFT's merge in PEFT's order of steps, so that not a bit differs.

        With DoRA (arXiv:2402.09353) each row of the sum gets its trained norm.
        """
        weight = self.stored.read().to(torch.float32) if self.replaced is None else self.replaced
        delta = self.factor.update(transposed=self.transposed)
        if self.factor.magnitude_O is None:
            return weight + delta
        sum_OD = weight.T + delta.T if self.transposed else weight + delta
        scale_O1 = (self.factor.magnitude_O / torch.linalg.norm(sum_OD, dim=1)).view(-1, 1)
        return (scale_O1.T if self.transposed else scale_O1) * (weight + delta)

    def words(self) -> str:
        dora = ", DoRA" if self.factor.magnitude_O is not None else ""
        return f"patch    {self.name}  r {self.factor.rank}, scale {self.factor.scale:.3g}{dora}"


@dataclass(frozen=True)
class PatchRows:
    """The tensor with the rows of some tokens put in the place of its own."""

    stored: Stored
    tokens: tuple[int, ...]
    rows: Tensor

    @property
    def name(self) -> str:
        return self.stored.name

    @property
    def shape(self) -> tuple[int, ...]:
        return self.stored.shape

    def value(self) -> Tensor:
        weight = self.stored.read().to(torch.float32)
        return weight.index_copy(0, torch.tensor(self.tokens), self.rows)

    def words(self) -> str:
        return f"patch    {self.name}  {len(self.tokens)} rows"


@dataclass(frozen=True)
class Replace:
    """Another tensor in the place of the base's."""

    stored: Stored
    tensor: Tensor

    @property
    def name(self) -> str:
        return self.stored.name

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    def value(self) -> Tensor:
        return self.tensor

    def words(self) -> str:
        return f"replace  {self.name}"


@dataclass(frozen=True)
class Add:
    """A tensor that the base does not have: a classifier's head."""

    name: str
    tensor: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    def value(self) -> Tensor:
        return self.tensor

    def words(self) -> str:
        return f"add      {self.name}"


@dataclass(frozen=True)
class Untie:
    """A tensor of its own for a name that shared another's; `source` says what it becomes."""

    name: str
    source: Copy | Patch | PatchRows | Replace

    @property
    def shape(self) -> tuple[int, ...]:
        return self.source.shape

    def value(self) -> Tensor:
        return self.source.value()

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
    free, need = free_bytes(out), plan.bytes + SPARE_BYTES
    if free < need:
        raise RequestError(
            "the disk has no room for it",
            where=str(out),
            got=f"{free / 2**20:,.0f} MiB free",
            need=f"{need / 2**20:,.0f} MiB",
            next="make room, or choose another disk: --out FOLDER",
        )


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
    value = operation.value().to(dtype)
    if value.is_floating_point() and not value.isfinite().all():
        raise ModelError(
            f"`{operation.name}` has numbers that {str(dtype).removeprefix('torch.')} does not hold",
            need="finite numbers",
            next="--dtype bfloat16 or --dtype float32",
        )
    yield bytes_of(value)


def _write_index(plan: Plan, folder: Path) -> None:
    """Which file holds which tensor, where there is more than one file."""
    if len(plan.files) < 2:
        return
    index = {
        "metadata": {"total_size": plan.bytes},
        "weight_map": {one.name: file for file, operations in plan.files.items() for one in operations},
    }
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
