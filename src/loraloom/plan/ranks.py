"""Ranks that differ from layer to layer, at the same number of trained parameters.

`adapter.rank_allocation` names where rank goes; what comes out are ranks and alphas by path, as
`adapter.rank_pattern` and `adapter.alpha_pattern` hold them. The scale of every layer stays what it was:
with alpha / r its alpha grows as its rank does, with rsLoRA as the root of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from loraloom.config import names
from loraloom.config.choices import MEASURED_ALLOCATIONS, UNIFORM
from loraloom.errors import ConfigError
from loraloom.facts.groups import thirds
from loraloom.facts.linear import LinearFact
from loraloom.plan.case import Case

Sizes = Mapping[str, tuple[int, int]]
"""Features in and out of each layer, by path: one more rank costs their sum."""
EMPHASIS = 4.0
"""The rank of a named group as a multiple of the others': far enough from 1 to show whether a group
matters, and no layer goes without."""
TOLERANCE = 0.01
"""By which share of its parameters an allocation may exceed one rank for all."""
EVEN_RANKS = "orthogonal"
"""The start that takes even ranks only."""
SHARE = 0.25
"""Of the plan's steps that are trained before energy or sensitivity are read."""
LEAST_STEPS = 20
TIMES = 2
"""The rank that is measured, as a multiple of the plan's: a layer can be given so many directions."""
ROWS = 256
"""Training rows whose way through the bare base is looked at."""


def allocate(sizes: Sizes, r: int, weights: Mapping[str, float]) -> dict[str, int]:
    """Whole ranks in proportion to weights, with as many parameters as rank r in every layer.

    Each rank is at least 1 and at most what the layer can hold (its smaller side, or r where that is
    more). The sum is at most 1% above the budget, and below it by less than one layer's in + out. A
    layer of a larger weight never gets less, unless it is full.

    Args:
        r: the rank that sets the budget.
        weights: of every layer, 0 or more.

    Raises:
        ValueError: no weight is above 0, or one is negative or not finite.
    """
    if not all(math.isfinite(weights[path]) and weights[path] >= 0 for path in sizes) or not any(
        weights[path] > 0 for path in sizes
    ):
        raise ValueError("weights must be finite and 0 or more, at least one above 0")
    cost = {path: sum(size) for path, size in sizes.items()}
    most = {path: max(r, min(size)) for path, size in sizes.items()}
    budget = r * sum(cost.values())
    exact = _shares(cost, most, budget, weights)
    ranks = {path: math.floor(share + 1e-9) for path, share in exact.items()}
    spent = sum(cost[path] * rank for path, rank in ranks.items())
    # What rounding down has left goes to the layers that it cost most; a larger weight comes first.
    order = sorted(ranks, key=lambda path: (ranks[path] - exact[path], -weights[path]))
    for path in order:
        beyond = spent + cost[path] - budget
        if beyond > min(budget - spent, TOLERANCE * budget) or ranks[path] >= most[path]:
            break
        ranks[path] += 1
        spent += cost[path]
    return ranks


def _shares(
    cost: Mapping[str, int], most: Mapping[str, int], budget: int, weights: Mapping[str, float]
) -> dict[str, float]:
    """Ranks in proportion to weights, between 1 and each layer's most, that cost the budget: by
    bisection on the factor between the two."""

    def shares(factor: float) -> dict[str, float]:
        return {path: min(max(factor * weights[path], 1.0), float(most[path])) for path in cost}

    def price(factor: float) -> float:
        return sum(cost[path] * share for path, share in shares(factor).items())

    # With no weight at all a layer still takes what the others are too full for.
    least = max(weights.values()) * 1e-9
    weights = {path: max(weights[path], least) for path in cost}
    low, high = 0.0, max(most.values()) / min(weights.values())
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if price(middle) <= budget else (low, middle)
    return shares(low)


def most_important(importance: Mapping[str, Sequence[float]], sizes: Sizes, r: int) -> dict[str, float]:
    """How many directions of each layer are among the most important ones that the budget of rank r
    buys: the weights of an allocation.

    This is how AdaLoRA (arXiv:2303.10512) and EVA (arXiv:2410.07170) share a budget, with parameters
    counted in place of directions.

    Args:
        importance: of each layer's directions; there should be more of them than r.
    """
    left = r * sum(sum(size) for size in sizes.values())
    counts = dict.fromkeys(sizes, 0.0)
    ordered = sorted(
        ((value, path) for path, values in importance.items() for value in values), reverse=True
    )
    for value, path in ordered:
        if value <= 0 or sum(sizes[path]) > left:
            break
        counts[path] += 1
        left -= sum(sizes[path])
    return counts


def group_weights(linears: Sequence[LinearFact], allocation: str) -> dict[str, float]:
    """Weights of an allocation that names a group: "mlp", "last", "attention_first".

    Raises:
        ConfigError: no target lies in the group, or all do.
    """
    third = thirds(linear.path for linear in linears)
    wanted = set(allocation.split("_"))
    inside = {linear.path for linear in linears if wanted <= {linear.role, third.get(linear.path, "")}}
    if not inside or len(inside) == len(linears):
        raise ConfigError(
            f"`{names.RANK_ALLOCATION}: {allocation}` has nowhere to take rank from"
            if inside
            else f"`{names.RANK_ALLOCATION}: {allocation}` names layers that are no targets",
            got=f"{len(inside)} of {len(linears)} target layers in that group",
            need="targets inside the group and outside of it; thirds need three blocks or more",
            next=f"leave `{names.RANK_ALLOCATION}` at {UNIFORM}, or add to `adapter.target_modules`",
        )
    return {linear.path: EMPHASIS if linear.path in inside else 1.0 for linear in linears}


def patterns(
    linears: Sequence[LinearFact],
    adapter: Mapping[str, Any],
    measured: Mapping[str, Mapping[str, float]] | None,
) -> dict[str, Any]:
    """`rank_pattern` and `alpha_pattern` of a candidate, by path.

    Args:
        linears: its targets.
        adapter: its settings, without the section's name.
        measured: weights by allocation; None before anything was measured, when one rank for all stands
            in: it costs the same.

    Raises:
        ConfigError: a group without layers, or an allocation that this run has not measured.
    """
    allocation, r = adapter["rank_allocation"], adapter["r"]
    if allocation in MEASURED_ALLOCATIONS:
        if measured is None:
            return {}
        if allocation not in measured:
            raise ConfigError(
                f"`{names.RANK_ALLOCATION}: {allocation}` was not measured in this run",
                need="an allocation that was asked for, or searched, when the run began",
                next=f"begin another run with --set {names.RANK_ALLOCATION}={allocation}",
            )
        weights = {linear.path: measured[allocation].get(linear.path, 0.0) for linear in linears}
    else:
        weights = group_weights(linears, allocation)
    sizes = {linear.path: (linear.in_features, linear.out_features) for linear in linears}
    ranks = allocate(sizes, r, weights)
    power = 0.5 if adapter["use_rslora"] else 1.0
    alphas = {path: adapter["lora_alpha"] * (rank / r) ** power for path, rank in ranks.items()}
    return {"rank_pattern": ranks, "alpha_pattern": alphas}


def allocations_asked(case: Case) -> tuple[str, ...]:
    """Every allocation other than the uniform one that a candidate of this request may have."""
    space = case.asked.search.space
    searched = space.get(names.RANK_ALLOCATION, ()) if isinstance(space, Mapping) else ()
    every = (case.asked.adapter.rank_allocation, *searched)
    return tuple(dict.fromkeys(name for name in every if name != UNIFORM))


def measured_steps(planned: int) -> int:
    """How many of the plan's steps are trained to measure ranks."""
    return min(max(LEAST_STEPS, math.ceil(SHARE * planned)), planned)


def notes_on_measuring(case: Case) -> tuple[str, ...]:
    """What a run does before it trains."""
    wanted = set(allocations_asked(case))
    notes: list[str] = []
    if trained := [name for name in ("energy", "adalora") if name in wanted]:
        notes.append(
            f"ranks by {' and '.join(trained)} are measured first: a training of rank"
            f" {TIMES * case.decided.r} for {measured_steps(case.total_steps)} steps"
        )
    if "eva" in wanted:
        notes.append(f"ranks by eva are measured first: {min(ROWS, case.facts.data.rows)} training rows")
    return tuple(notes)


def kept_apart(case: Case) -> frozenset[str]:
    """Keys that the plan's own search space leaves alone where rank is moved."""
    return frozenset({names.TARGET_MODULES}) if allocations_asked(case) else frozenset()


def check(case: Case) -> None:
    """Refuse what cannot be together with an allocation.

    Raises:
        ConfigError: ranks or alphas of single layers, a start that takes even ranks alone, a rank of 1,
            where there is nothing to move, or a group that has no layers.
    """
    asked = case.asked.adapter
    wanted = allocations_asked(case)
    if not wanted:
        return
    space = case.asked.search.space
    searched: Mapping[str, Any] = space if isinstance(space, Mapping) else {}
    starts = (asked.init_lora_weights, *searched.get(names.INIT_LORA_WEIGHTS, ()))
    together = (
        (bool(asked.rank_pattern), names.RANK_PATTERN, "both say the ranks of single layers"),
        (bool(asked.alpha_pattern), names.ALPHA_PATTERN, "alphas follow the ranks here"),
        (asked.init_from is not None, names.INIT_FROM, "the weights of that adapter have their ranks"),
        (EVEN_RANKS in starts, names.INIT_LORA_WEIGHTS, "orthogonal takes even ranks only"),
        (
            names.TARGET_MODULES in searched,
            f"search.space.{names.TARGET_MODULES}",
            "rank is moved between the same layers in all candidates",
        ),
        (asked.r == 1, names.R, "every layer keeps a rank of 1 at least: nothing can be moved"),
    )
    for there, key, why in together:
        if there:
            raise ConfigError(
                f"`{names.RANK_ALLOCATION}: {wanted[0]}` cannot go with `{key}`",
                got=why,
                next=f"leave one of the two out: {key}, or {names.RANK_ALLOCATION}",
            )
    for allocation in wanted:
        if allocation not in MEASURED_ALLOCATIONS:
            group_weights(case.linears, allocation)
