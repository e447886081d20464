"""The space that is searched when the user names none: more candidates, more
dimensions, the one that matters most first.

The order and the ranges come from the sources in the comments below; how many dimensions a number of
candidates can carry is this project's own rule.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from loraloom.config import names
from loraloom.search.dimensions import Choices, Dimension, Range, choices, powers_of_two
from loraloom.search.space import ALPHA, BATCH, RANK, RATE, SCALE, Couplings, Space

RATE_CAP = 1e-3
"""No decoder adapter of the 117 sweeps behind our rule wanted a larger rate
(thinking-machines-lab/tinker-cookbook)."""
RATE_REACH = 4.0
"""A rate that is 10 times off costs 4.2% of the loss, 3 times 1.0%: a factor 4 each way
holds what is worth finding."""
ANCHORS = 4

_DROPOUT = (0.0, 0.05, 0.1)
_DECAY = (0.0, 0.01, 0.1)
_WARMUP = (0.03, 0.06, 0.1)
_REPLAY = (0.0, 0.05, 0.1, 0.2, 0.4)
_SCALES = (0.5, 1.0, 2.0, 4.0)  # alpha/r of the common tools spans 0.25 to 4
_TARGETS = ("attention", "mlp", "all-linear")  # fewest trained parameters first
_LORA_PLUS = (1.0, 4.0, 16.0)  # arXiv 2402.12354 searches about this far


def default_space(
    plan_values: Mapping[str, Any],
    trials: int,
    pack_size: int,
    caps: Mapping[str, float] | None = None,
    *,
    wide: bool = False,
    fixed: Collection[str] = (),
    ranges: Mapping[str, tuple[float, float]] | None = None,
) -> Space:
    """The space for a number of candidates, centred on the plan's setting.

    4 candidates search the learning rate; 16 also batch size and rank; 32 also dropout, weight decay and
    warm-up; 128 also alpha/r, targets and the LoRA+ ratio. In between, the nearest of these by ratio.
    With a slot for every candidate nothing is learned on the way, and evenly spread points tell about
    log2(points) dimensions apart: then no more are searched.

    The rate stands for the plan's batch size and alpha/r: a candidate's own rate is that times
    sqrt(batch / plan's batch) (small-batch Adam) and divided by the change of alpha/r, so that neither
    moves the best rate much.

    Args:
        plan_values: the plan's value by dotted key; `training.learning_rate` must be among them.
        trials: how many candidates.
        pack_size: how many train at a time.
        wide: whether most of the candidates are trained for a short way only: they
            carry as much as half of them would.
        caps: the largest value allowed by dotted key: 2e-3 for an encoder's rate, what
            fits for rank and batch size.
        fixed: keys that no candidate may change.
        ranges: ranges on a log scale that the plan knows of this task, by dotted key: of the rate in
            place of ours, of others to be searched next.
    """
    limits = {RATE: RATE_CAP, RANK: 128.0, BATCH: 64.0, **(caps or {})}
    dimensions = [
        dimension
        for group in _groups(plan_values, limits, trials // 2 if wide else trials, ranges or {})
        for dimension in group
        if dimension.key not in fixed
    ]
    if pack_size >= trials:
        dimensions = dimensions[: max(1, int(math.log2(max(trials - ANCHORS, 2))))]
    return Space(
        tuple(dimensions), _couplings(dimensions, plan_values, max(limits[RATE], plan_values[RATE]))
    )


def _groups(
    plan: Mapping[str, Any],
    limits: Mapping[str, float],
    trials: int,
    ranges: Mapping[str, tuple[float, float]],
) -> list[list[Dimension]]:
    """Dimensions by priority, as many groups as the candidates can carry (bounds:
    geometric means of 4, 16, 32, 128)."""
    known = {key: Range(key, *ends, log=True) for key, ends in ranges.items()}
    first: list[Dimension] = [known.pop(RATE, None) or _rate(float(plan[RATE]), limits[RATE])]
    if plan.get(names.REPLAY_SHARE):
        first.append(_near(names.REPLAY_SHARE, plan, _REPLAY))
    second: list[Dimension] = [
        *known.values(),
        _powers(BATCH, plan, 4, limits[BATCH]),
        _powers(RANK, plan, 8, limits[RANK]),
    ]
    third: list[Dimension] = [
        _near(names.LORA_DROPOUT, plan, _DROPOUT),
        _near(names.WEIGHT_DECAY, plan, _DECAY),
        _near(names.WARMUP_RATIO, plan, _WARMUP),
    ]
    fourth: list[Dimension] = [
        *_scale(plan),
        *_targets(plan),
        choices(names.LORA_PLUS_RATIO, _LORA_PLUS),
    ]
    return [
        group for group, least in ((first, 0), (second, 8), (third, 23), (fourth, 64)) if trials >= least
    ]


def _rate(rate: float, cap: float) -> Range:
    return Range(RATE, rate / RATE_REACH, min(rate * RATE_REACH, max(cap, rate)), log=True)


def _powers(key: str, plan: Mapping[str, Any], low: int, cap: float) -> Choices:
    """Powers of two from `low` (or the plan's value, if that is smaller) to the cap (or
    the plan's value)."""
    value = int(plan.get(key, low))
    floor = 2 ** int(math.log2(max(value, 1)))
    return powers_of_two(key, min(low, floor), max(2 ** int(math.log2(max(cap, 1))), floor))


def _near(key: str, plan: Mapping[str, Any], listed: tuple[float, ...]) -> Choices:
    """The usual choices with the plan's own among them."""
    return choices(key, sorted({*listed, float(plan.get(key, listed[0]))}))


def _scale(plan: Mapping[str, Any]) -> list[Dimension]:
    scale = _plan_scale(plan)
    return [choices(SCALE, sorted({*_SCALES, scale}))] if scale else []


def _targets(plan: Mapping[str, Any]) -> list[Dimension]:
    """Which modules, from few to many parameters; modules that the user named stay as they are."""
    named = plan.get(names.TARGET_MODULES, "all-linear")
    return [choices(names.TARGET_MODULES, _TARGETS, ordered=True)] if named in _TARGETS else []


def _couplings(dimensions: list[Dimension], plan: Mapping[str, Any], cap: float) -> Couplings:
    searched = {dimension.key for dimension in dimensions}
    return Couplings(
        alpha_per_r=_plan_scale(plan) if RANK in searched and SCALE not in searched else None,
        batch=float(plan[BATCH]) if BATCH in searched and BATCH in plan else None,
        scale=_plan_scale(plan) if SCALE in searched else None,
        rate_cap=cap,
    )


def _plan_scale(plan: Mapping[str, Any]) -> float | None:
    """The plan's alpha / r."""
    return float(plan[ALPHA]) / float(plan[RANK]) if plan.get(ALPHA) and plan.get(RANK) else None
