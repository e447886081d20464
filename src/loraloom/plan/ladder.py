"""What could be cut to need less memory, in the order in which it should be: each rung
with what it saves and what it costs.

The order is that of the evidence: what costs nothing but speed comes first, what costs quality last, and
a smaller rank hardly saves anything (an adapter of rank 16 is a small share of any model's memory).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from loraloom.config import names
from loraloom.plan import engine
from loraloom.plan.case import DERIVED, Case
from loraloom.plan.needs import need, offloads, quantises
from loraloom.plan.shape import Shape, decided_shape
from loraloom.plan.time import offload_share
from loraloom.records import Estimate

SHORTEST = 32
"""Rows are not cut below this many tokens."""
SMALLEST_RANK = 8
ROOM = 0.97
"""A rung that leaves more than this share of what the one above it needs is not worth its cost."""


@dataclass(frozen=True)
class Rung:
    """One cut on top of those before it. `change` says what to set, by dotted key.

    Attributes:
        bytes: what the run then needs.
        saved: bytes less than before this cut.
        seconds: share by which a step takes longer, such as 0.33; 0.0 for none.
        quality: what it costs in the result, in words.
        available: whether this release can do it on this device; if not, the rungs below do without it.
    """

    name: str
    change: Mapping[str, Any]
    bytes: float
    saved: float
    seconds: float
    quality: str
    available: bool
    source: str


@dataclass(frozen=True)
class Least:
    """How little memory one candidate can do with: `change` says what to set for it, by dotted key."""

    need: Estimate
    change: Mapping[str, Any]


@dataclass(frozen=True)
class _Cut:
    """A rung before its bytes are known: they follow from `case` and `shape`."""

    name: str
    change: Mapping[str, Any]
    case: Case
    shape: Shape
    quality: str
    source: str = DERIVED
    seconds: float = 0.0
    available: bool = True


def ladder(case: Case, shape: Shape) -> tuple[Rung, ...]:
    """The cuts that are left below the plan's `shape`, each upon the ones above it.
    Rungs that save nothing are left out."""
    before = need(case, shape)
    found: list[Rung] = []
    for cut in _cuts(case, shape):
        after = need(cut.case, cut.shape)
        if after.value > before.value * ROOM:
            continue
        saved = before.value - after.value
        found.append(
            Rung(
                cut.name,
                cut.change,
                after.value,
                saved,
                cut.seconds,
                cut.quality,
                cut.available,
                cut.source,
            )
        )
        if cut.available:
            before = after
    return tuple(found)


def least(case: Case, enough: float = 0.0) -> Least:
    """The fewest cuts, in order, that bring one candidate down to `enough` bytes with
    the forecast's margin.

    Where none do, those that need least; a cut at the end that saves next to nothing is not among them.
    """
    shape = decided_shape(case.decided)
    best = Least(need(case, shape), {})
    change: dict[str, Any] = {}
    for cut in _cuts(case, shape):
        if best.need.high <= enough:
            break
        if not cut.available:
            continue
        change |= cut.change
        after = need(cut.case, cut.shape)
        if after.value <= best.need.value * ROOM:
            best = Least(after, dict(change))
    return best


def _cuts(case: Case, shape: Shape) -> Iterator[_Cut]:
    """Every cut in order; each starts from where the available ones before it have led."""
    if shape.packed > 1:
        shape = replace(shape, packed=1, token_budget=None)
        yield _Cut(
            "one candidate at a time", {names.MAX_PACKED: 1}, case, shape, "none; a search takes longer"
        )
    if case.decided.dtype == "float32" and case.facts.device.kind != "mps":
        change = {names.DTYPE: "bfloat16"}
        native = case.facts.device.bf16_native
        quality = "none that was measured: adapters stay float32"
        half = case.assuming(change)
        yield _Cut("bfloat16 base", change, half, shape, quality, "arXiv:2305.14314", available=native)
        case = half if native else case
    if not shape.checkpointing:
        change = {names.GRADIENT_CHECKPOINTING: True}
        can = engine.GRADIENT_CHECKPOINTING
        quality = "none: the same gradients"
        lower = replace(shape, checkpointing=True)
        yield _Cut(
            "gradient checkpointing", change, case, lower, quality, "arXiv:1604.06174", 1 / 3, can
        )
        shape = lower if can else shape
    if shape.checkpointing is True and offloads(case):
        change = {names.GRADIENT_CHECKPOINTING: "offload"}
        shape = replace(shape, checkpointing="offload")
        price = offload_share(case)
        quality = "none: the same gradients"
        yield _Cut("inputs of blocks on the host", change, case, shape, quality, seconds=price)
    if shape.quantization == "none":
        change = {names.QUANTIZATION: "nf4"}
        can = quantises(case)
        quality = "none on average: MMLU 53.1 against 53.0"
        lower = replace(shape, quantization="nf4")
        yield _Cut(
            "NF4 base with double quantisation",
            change,
            case,
            lower,
            quality,
            "arXiv:2305.14314",
            0.5,
            can,
        )
        shape = lower if can else shape
    if shape.micro_batch > 1:
        rows = shape.micro_batch * case.decided.accumulation
        change = {names.PER_DEVICE_TRAIN_BATCH_SIZE: 1, names.GRADIENT_ACCUMULATION_STEPS: rows}
        shape = replace(shape, micro_batch=1)
        yield _Cut("one row at a time", change, case, shape, "none: the same gradients", seconds=0.2)
    for length in (shape.length // 2, shape.length // 4):
        if length < SHORTEST:
            break
        quality = f"up to {case.facts.data.share_above(length):.0%} of the rows lose their end"
        shape = replace(shape, length=length)
        yield _Cut(f"rows of {length:,} tokens", {names.MAX_LENGTH: length}, case, shape, quality)
    if case.decided.r > SMALLEST_RANK:
        change = {names.R: SMALLEST_RANK}
        quality = "a smaller adapter learns less: 0.7% loss from 16 to 4"
        source = "thinking-machines-lab/tinker-cookbook"
        yield _Cut(f"rank {SMALLEST_RANK}", change, case.assuming(change), shape, quality, source)


__all__ = ["Least", "Rung", "ladder", "least"]
