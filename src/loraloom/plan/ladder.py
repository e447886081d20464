"""What could be cut to need less memory, in the order in which it should be: each rung
with what it saves and what it costs.

The order is that of the evidence: what costs nothing but speed comes first, what costs quality last, and
a smaller rank hardly saves anything (an adapter of rank 16 is a small share of any model's memory).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from loraloom.config.asked import Config
from loraloom.plan import engine
from loraloom.plan.inputs import Decided, Facts
from loraloom.plan.memory import Shape, decided_shape
from loraloom.plan.needs import need, quantises
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
    """A rung before its bytes are known."""

    name: str
    change: Mapping[str, Any]
    shape: Shape
    decided: Decided
    seconds: float
    quality: str
    source: str
    available: bool = True


def ladder(asked: Config, facts: Facts, decided: Decided, shape: Shape) -> tuple[Rung, ...]:
    """The cuts that are left below the plan's `shape`, each upon the ones above it.
    Rungs that save nothing are left out."""
    before = need(asked, facts, decided, shape)
    found: list[Rung] = []
    for cut in _cuts(asked, facts, decided, shape):
        after = need(asked, facts, cut.decided, cut.shape)
        if after.value > before.value * ROOM:
            continue
        found.append(
            Rung(
                cut.name,
                cut.change,
                after.value,
                before.value - after.value,
                cut.seconds,
                cut.quality,
                cut.available,
                cut.source,
            )
        )
        if cut.available:
            before = after
    return tuple(found)


def least(asked: Config, facts: Facts, decided: Decided, enough: float = 0.0) -> Least:
    """The fewest cuts, in order, that bring one candidate down to `enough` bytes with
    the forecast's margin.

    Where none do, those that need least; a cut at the end that saves next to nothing is not among them.
    """
    shape = decided_shape(decided)
    best, change = Least(need(asked, facts, decided, shape), {}), dict[str, Any]()
    for cut in _cuts(asked, facts, decided, shape):
        if best.need.high <= enough:
            break
        if not cut.available:
            continue
        change |= cut.change
        after = need(asked, facts, cut.decided, cut.shape)
        if after.value <= best.need.value * ROOM:
            best = Least(after, dict(change))
    return best


def _cuts(asked: Config, facts: Facts, decided: Decided, shape: Shape) -> Iterator[_Cut]:
    """Every cut in order; each starts from where the available ones before it have led."""
    if shape.packed > 1:
        shape = replace(shape, packed=1, token_budget=None)
        change = {"limits.max_packed": 1}
        yield _Cut(
            "one candidate at a time",
            change,
            shape,
            decided,
            0.0,
            "none; a search takes longer",
            "derived here",
        )
    if shape.prepack:
        shape = replace(shape, prepack=False)
        yield _Cut(
            "no layouts of frozen weights",
            {"goal": "memory"},
            shape,
            decided,
            0.3,
            "none",
            "derived here",
        )
    half = _half(facts, decided)
    if half is not None:
        native = facts.device.bf16_native
        decided = half if native else decided
        yield _Cut(
            "bfloat16 base",
            {"model.dtype": "bfloat16"},
            shape,
            half,
            0.0,
            "none that was measured: adapters stay float32",
            "arXiv:2305.14314",
            native,
        )
    if not shape.checkpointing:
        lower = replace(shape, checkpointing=True)
        shape = lower if engine.GRADIENT_CHECKPOINTING else shape
        yield _Cut(
            "gradient checkpointing",
            {"training.gradient_checkpointing": True},
            lower,
            decided,
            1 / 3,
            "none: the same gradients",
            "arXiv:1604.06174",
            engine.GRADIENT_CHECKPOINTING,
        )
    if shape.quantization == "none":
        lower, can = replace(shape, quantization="nf4"), quantises(asked, facts)
        shape = lower if can else shape
        yield _Cut(
            "NF4 base with double quantisation",
            {"model.quantization": "nf4"},
            lower,
            decided,
            0.5,
            "none on average: MMLU 53.1 against 53.0",
            "arXiv:2305.14314",
            can,
        )
    if shape.micro_batch > 1:
        rows = shape.micro_batch * decided["training.gradient_accumulation_steps"].value
        shape = replace(shape, micro_batch=1)
        change = {
            "training.per_device_train_batch_size": 1,
            "training.gradient_accumulation_steps": rows,
        }
        yield _Cut(
            "one row at a time", change, shape, decided, 0.2, "none: the same gradients", "derived here"
        )
    for length in (shape.length // 2, shape.length // 4):
        if length < SHORTEST:
            break
        shape = replace(shape, length=length)
        cut = facts.data.share_above(length)
        yield _Cut(
            f"rows of {length:,} tokens",
            {"data.max_length": length},
            shape,
            decided,
            0.0,
            f"up to {cut:.0%} of the rows lose their end",
            "derived here",
        )
    if decided["adapter.r"].value > SMALLEST_RANK:
        advice = replace(decided["adapter.r"], value=SMALLEST_RANK)
        yield _Cut(
            f"rank {SMALLEST_RANK}",
            {"adapter.r": SMALLEST_RANK},
            shape,
            {**decided, "adapter.r": advice},
            0.0,
            "a smaller adapter learns less: 0.7% loss from 16 to 4",
            "thinking-machines-lab/tinker-cookbook",
        )


def _half(facts: Facts, decided: Decided) -> Decided | None:
    """The same with a bfloat16 base; None where it is one already, or no float32 one."""
    if decided["model.dtype"].value != "float32" or facts.device.kind == "mps":
        return None
    return {**decided, "model.dtype": replace(decided["model.dtype"], value="bfloat16")}


__all__ = ["Least", "Rung", "ladder", "least"]
