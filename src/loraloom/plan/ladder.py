"""What could be cut to need less memory, in the order in which it should be: each rung
with what it saves and what it costs.

The order is that of the evidence: what costs nothing but speed comes first, what costs quality last, and
a smaller rank hardly saves anything (an adapter of rank 16 is a small share of any model's memory).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

from loraloom.config import names
from loraloom.plan import engine
from loraloom.plan.case import DERIVED, Case
from loraloom.plan.needs import holds_moments_in_8_bits, need, offloads, quantises, streams
from loraloom.plan.shape import Shape, decided_shape
from loraloom.plan.time import alone_share, offload_share, spreading_share, streaming_share
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
    """The cuts that are left below the plan's `shape`, each upon the available ones above it. Cuts
    that save next to nothing are left out, and those below do without them."""
    before = need(case, shape)
    found: list[Rung] = []
    for make in _CUTS:
        cut = make(case, shape)
        if cut is None:
            continue
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
            before, case, shape = after, cut.case, cut.shape
    return tuple(found)


def least(case: Case, enough: float = 0.0) -> Least:
    """The fewest cuts, in order, that bring one candidate down to `enough` bytes with the
    forecast's margin.

    Where none do, those that need least; a cut at the end that saves next to nothing is not among them.
    """
    shape = decided_shape(case.decided)
    lowest = need(case, shape)
    best = Least(lowest, {})
    change: dict[str, Any] = {}
    for make in _CUTS:
        if best.need.high <= enough:
            break
        cut = make(case, shape)
        if cut is None or not cut.available:
            continue
        after = need(cut.case, cut.shape)
        # Half precision and recomputing make some small models' peaks larger: those do without.
        if after.value >= lowest.value:
            continue
        lowest, case, shape = after, cut.case, cut.shape
        change |= cut.change
        if after.value <= best.need.value * ROOM:
            best = Least(after, dict(change))
    return best


def _one_candidate(case: Case, shape: Shape) -> _Cut | None:
    if shape.packed == 1:
        return None
    alone = replace(shape, packed=1, token_budget=None)
    change = {names.MAX_PACKED: 1}
    price = alone_share(case, shape)
    return _Cut("one candidate at a time", change, case, alone, "none", seconds=price)


def _half_precision(case: Case, shape: Shape) -> _Cut | None:
    if case.decided.dtype != "float32" or case.facts.device.kind == "mps":
        return None
    change = {names.DTYPE: "bfloat16"}
    quality = "none that was measured: adapters stay float32"
    native = case.facts.device.bf16_native
    half = case.assuming(change)
    return _Cut("bfloat16 base", change, half, shape, quality, "arXiv:2305.14314", available=native)


def _checkpointing(case: Case, shape: Shape) -> _Cut | None:
    if shape.checkpointing:
        return None
    change = {names.GRADIENT_CHECKPOINTING: True}
    lower = replace(shape, checkpointing=True)
    quality = "none: the same gradients"
    can = engine.GRADIENT_CHECKPOINTING
    return _Cut("gradient checkpointing", change, case, lower, quality, "arXiv:1604.06174", 1 / 3, can)


def _inputs_on_the_host(case: Case, shape: Shape) -> _Cut | None:
    if shape.checkpointing is not True or not offloads(case):
        return None
    change = {names.GRADIENT_CHECKPOINTING: "offload"}
    lower = replace(shape, checkpointing="offload")
    quality = "none: the same gradients"
    price = offload_share(case)
    return _Cut("inputs of blocks on the host", change, case, lower, quality, seconds=price)


def _eight_bit_moments(case: Case, shape: Shape) -> _Cut | None:
    if case.decided[names.OPTIM].value != "adamw" or not holds_moments_in_8_bits(case):
        return None
    change = {names.OPTIM: "adamw_8bit"}
    quality = "none in its authors' experiments"
    lower = case.assuming(change)
    can = find_spec("bitsandbytes") is not None
    return _Cut("moments in 8 bits", change, lower, shape, quality, "arXiv:2110.02861", available=can)


def _four_bits(case: Case, shape: Shape) -> _Cut | None:
    if shape.quantization != "none":
        return None
    name = "NF4 base with double quantisation"
    change = {names.QUANTIZATION: "nf4"}
    lower = replace(shape, quantization="nf4")
    quality = "none on average: MMLU 53.1 against 53.0"
    price = spreading_share(case, lower)
    return _Cut(name, change, case, lower, quality, "arXiv:2305.14314", price, quantises(case))


def _streamed(case: Case, shape: Shape) -> _Cut | None:
    if shape.streaming or not streams(case):
        return None
    change: dict[str, Any] = {names.STREAMING: True}
    quality = "none: the same weights"
    if case.facts.device.kind == "cpu":
        name, lower = "weights that stay in their files", replace(shape, quantization="none")
        if shape.quantization != "none":
            change[names.QUANTIZATION] = "none"  # codes have no file of their own
    elif shape.checkpointing:
        name, lower = "weights of blocks on the host", shape
    else:
        return None
    lower = replace(lower, streaming=True)
    return _Cut(name, change, case, lower, quality, seconds=streaming_share(case, lower))


def _one_row(case: Case, shape: Shape) -> _Cut | None:
    if shape.micro_batch == 1:
        return None
    rows = shape.micro_batch * case.decided.accumulation
    change = {names.PER_DEVICE_TRAIN_BATCH_SIZE: 1, names.GRADIENT_ACCUMULATION_STEPS: rows}
    lower = replace(shape, micro_batch=1)
    return _Cut("one row at a time", change, case, lower, "none: the same gradients", seconds=0.2)


def _half_the_length(case: Case, shape: Shape) -> _Cut | None:
    length = shape.length // 2
    if length < SHORTEST:
        return None
    quality = f"up to {case.facts.data.share_above(length):.0%} of the rows lose their end"
    lower = replace(shape, length=length)
    return _Cut(f"rows of {length:,} tokens", {names.MAX_LENGTH: length}, case, lower, quality)


def _small_rank(case: Case, shape: Shape) -> _Cut | None:
    if case.decided.r <= SMALLEST_RANK:
        return None
    change = {names.R: SMALLEST_RANK}
    quality = "a smaller adapter learns less: 0.7% loss from 16 to 4"
    source = "thinking-machines-lab/tinker-cookbook"
    return _Cut(f"rank {SMALLEST_RANK}", change, case.assuming(change), shape, quality, source)


_CUTS: tuple[Callable[[Case, Shape], _Cut | None], ...] = (
    _one_candidate,
    _half_precision,
    _checkpointing,
    _inputs_on_the_host,
    _eight_bit_moments,
    _four_bits,
    _streamed,
    _one_row,
    _half_the_length,
    _half_the_length,
    _small_rank,
)
"""Each gives what it would make of a case and its shape; None where there is nothing to cut."""

__all__ = ["Least", "Rung", "ladder", "least"]
