"""Several adapters of one base combined layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from loraloom.adapters.combine import METHODS
from loraloom.adapters.combine.task import LayerTask
from loraloom.adapters.factors import Pair, least_error, product_norm
from loraloom.adapters.form import Factor, Form
from loraloom.adapters.made_proof import relative_error
from loraloom.errors import ModelError, RequestError

AIM_AT_SUM = ("cat", "svd", "soup")
"""Methods whose result is the best of its rank for the weighted sum, or the mean."""
SUM_OF_RANKS = ("cat", "regmean")
DENSITY = 0.5
"""Of TIES, DARE and KnOTS: the papers keep 20% to 50% of whole models' updates."""


@dataclass(frozen=True)
class Combined:
    """The new adapter.

    Attributes:
        asked: by layer the updates with their weights in B, which a method that keeps everything adds
            up; of `soup` their mean, of `regmean` without the weights.
        error: |result - asked| / |asked| over all layers; what linear, TIES, DARE and KnOTS change on
            purpose counts too.
        least: the same of the best adapter of this rank; None where the method does not aim at it.
    """

    form: Form
    method: str
    rank: int
    asked: Mapping[str, Sequence[Pair]]
    error: float
    least: float | None

    def to_json(self) -> dict[str, Any]:
        """The document of `adapter combine --json`, without folder and conflicts."""
        return {
            "method": self.method,
            "rank": self.rank,
            "layers": len(self.form.factors),
            "error": self.error,
        }


def combine(
    forms: Sequence[Form],
    weights: Sequence[float],
    method: str,
    *,
    rank: int | None = None,
    density: float = DENSITY,
    seed: int = 0,
    moments: Sequence[Mapping[str, Tensor]] = (),
) -> Combined:
    """One adapter of several.

    A layer that only some of them change gets what those say. One adapter alone comes back as it is,
    times its weight, whatever the method.

    Args:
        weights: one for each adapter.
        rank: of the result; the largest of theirs when None. `cat` and `regmean` have the sum of theirs.
        moments: for `regmean`, of the inputs of each adapter's task, by layer.

    Raises:
        RequestError: adapters that cannot be added to each other, or values out of range.
    """
    _check(forms, weights, method, rank, density)
    wide = rank or max(max(form.ranks) for form in forms)
    chosen = METHODS["cat" if len(forms) == 1 else method]
    factors: dict[str, Factor] = {}
    asked: dict[str, list[Pair]] = {}
    for path in dict.fromkeys(path for form in forms for path in form.factors):
        having = [number for number, form in enumerate(forms) if path in form.factors]
        found = [forms[number].factors[path] for number in having]
        task = LayerTask(
            path,
            [factor.pair for factor in found],
            [weights[number] for number in having],
            wide,
            density,
            seed,
            [moments[number][path] for number in having] if moments else (),
        )
        a, b = chosen(task)
        asked[path] = _asked(task, method)
        factors[path] = replace(found[0], a_RD=a.to(torch.float32), b_OR=b.to(torch.float32), scale=1.0)
    form = replace(forms[0], factors=factors, config=_config(forms, list(factors)))
    kept = max(form.ranks)
    least = _least(asked, kept) if method in AIM_AT_SUM or len(forms) == 1 else None
    return Combined(form, method, kept, asked, relative_error(form, asked), least)


def _asked(task: LayerTask, method: str) -> list[Pair]:
    """The updates whose sum a method is measured by."""
    if method == "regmean":  # its weights are those of the tasks' rows
        return list(task.updates)
    count = len(task.updates) if method == "soup" else 1
    return [(a, b / count) for a, b in task.weighted]


def _least(asked: Mapping[str, Sequence[Pair]], rank: int) -> float:
    lost = sum(least_error(pairs, rank) ** 2 for pairs in asked.values())
    every = sum(product_norm(pairs) ** 2 for pairs in asked.values())
    return (lost / every) ** 0.5 if every else 0.0


def _config(forms: Sequence[Form], paths: list[str]) -> dict[str, Any]:
    """The first one's config, for all layers that are changed."""
    config = dict(forms[0].config)
    if any(set(form.factors) != set(forms[0].factors) for form in forms):
        config["target_modules"] = paths
        for name in ("exclude_modules", "layers_to_transform", "layers_pattern"):
            config.pop(name, None)
    return config


def _check(
    forms: Sequence[Form], weights: Sequence[float], method: str, rank: int | None, density: float
) -> None:
    """Raises RequestError for what has no meaning."""
    if method not in METHODS:
        raise RequestError(f"--method is {method}", need=", ".join(METHODS), next="--method cat")
    if len(weights) != len(forms):
        raise RequestError(
            f"{len(forms)} adapters and {len(weights)} weights",
            need="a weight for each adapter",
            next=f"--weights {','.join(['1'] * len(forms))}",
        )
    if not 0 < density <= 1 or (rank is not None and rank < 1) or not any(weights):
        raise RequestError(
            "a density, rank or weight is out of range",
            got=f"density {density:g}, rank {rank}, weights {', '.join(f'{w:g}' for w in weights)}",
            need="a density above 0 and at most 1, a rank of at least 1, a weight that is not 0",
        )
    if method in SUM_OF_RANKS and rank is not None:
        raise RequestError(
            f"{method} has the sum of the ranks",
            got=f"--rank {rank}",
            next=f"--method svd --rank {rank}",
        )
    for form in forms:
        beyond = form.beyond_factors() if len(forms) > 1 or weights[0] != 1 else []
        if form.uses_dora or beyond or not form.factors:
            raise ModelError(
                f"the adapter in {form.folder} is not only a sum: it has"
                f" {'; '.join(form.beyond_factors()) or 'no layers'}",
                need="plain LoRA, which alone can be added to another",
                next="merge it into the base, and train or combine the others over that",
            )
    _same_base(forms)


def _same_base(forms: Sequence[Form]) -> None:
    """Raises ModelError for adapters of different models."""
    first = forms[0]
    for form in forms[1:]:
        for path, factor in form.factors.items():
            known = first.factors.get(path)
            if known is None:
                continue
            sizes = [(one.b_OR.shape[0], one.a_RD.shape[1]) for one in (known, factor)]
            if sizes[0] != sizes[1] or known.is_embedding != factor.is_embedding:
                raise ModelError(
                    f"`{path}` is {sizes[0][0]} x {sizes[0][1]} for {first.folder}, and"
                    f" {sizes[1][0]} x {sizes[1][1]} for {form.folder}",
                    need="adapters of one base",
                    next="compare base_model_name_or_path in their adapter_config.json",
                )
    bases = {str(form.config.get("base_model_name_or_path")).rstrip("/") for form in forms}
    tasks = {str(form.config.get("task_type")) for form in forms}
    if len(bases) > 1 or len(tasks) > 1:
        differ = sorted(bases if len(bases) > 1 else tasks)
        raise ModelError(
            "the adapters were trained over different bases, or for different tasks",
            got=", ".join(differ),
            need="adapters of one base and one task",
            next="where it is one base under two names, correct base_model_name_or_path",
        )
