"""What a `tune` of this plan may change: the space that the user wrote, else the
default one round the plan's setting."""

from __future__ import annotations

from typing import Any

from loraloom.config import names
from loraloom.plan.initial_adapter import fixed_keys, refuse_searched
from loraloom.plan.planner import Plan, candidate, search_caps
from loraloom.plan.ranks import kept_apart
from loraloom.search.decode import decode_space
from loraloom.search.default_space import default_space
from loraloom.search.dimensions import Choices, Dimension, Range
from loraloom.search.pruners import is_wide
from loraloom.search.space import Space


def search_space(plan: Plan) -> Space:
    """The space that `tune` searches.

    Raises:
        ConfigError: a key or a range that cannot be searched.
        RequestError: a value that this model cannot have.
    """
    asked = plan.config.search
    if asked.space == "auto":
        wide = is_wide(asked.pruner, plan.trials)
        return default_space(
            plan.values(),
            plan.trials,
            plan.pack_size,
            search_caps(plan),
            wide=wide,
            fixed=fixed_keys(plan.case) | kept_apart(plan.case),
            ranges=_ranges(plan),
        )
    space = decode_space(asked.space)
    refuse_searched(plan.case, (dimension.key for dimension in space.dimensions))
    # Whether a value suits this model (a target that matches nothing) shows only in a
    # candidate that has it.
    middle = space.point({})
    turned = [
        {**middle, dimension.key: level} for dimension in space.searched for level in dimension.levels(2)
    ]
    for point in (middle, *turned):
        candidate(plan, "check", space.params(point))
    return space


def _ranges(plan: Plan) -> dict[str, tuple[float, float]]:
    """How far rate and beta are searched where a task learns to choose between answers."""
    keys = (names.LEARNING_RATE, names.BETA) if names.BETA in plan.settings else ()
    found = {key: plan.settings[key].range for key in keys}
    return {key: (ends[0], ends[-1]) for key, ends in found.items() if ends is not None}


def space_json(plan: Plan) -> dict[str, Any]:
    """The space as `search.space` would be written: dotted key -> a list of choices, or
    {low, high, log, step}.

    `adapter.scale` stands for alpha/r, from which a candidate's `adapter.lora_alpha` follows.
    """
    return {dimension.key: _written(dimension) for dimension in search_space(plan).dimensions}


def _written(dimension: Dimension) -> Any:
    if isinstance(dimension, Choices):
        return list(dimension.values)
    assert isinstance(dimension, Range)
    return {
        "low": dimension.low,
        "high": dimension.high,
        "log": dimension.log,
        **({"step": dimension.step} if dimension.step else {}),
    }
