"""What a run measures before it trains, where a rank allocation asks for it: how much rank each layer
has use for, from a short training of the plan's own setting at twice its rank, or from what the layers
read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from loraloom.adapters.factors import singular_values
from loraloom.adapters.input_variance import explained_variance
from loraloom.config import names
from loraloom.config.choices import MEASURED_ALLOCATIONS, UNIFORM
from loraloom.data.batches import collate
from loraloom.errors import RunError, StoreError, first_line
from loraloom.evals.choices import by_length
from loraloom.facts.groups import group_names
from loraloom.lora.layer import lora_scale
from loraloom.pipeline.run_log import RunLog
from loraloom.pipeline.workbench import Workbench
from loraloom.plan.planner import candidate
from loraloom.plan.ranks import ROWS, TIMES, allocations_asked, measured_steps, most_important
from loraloom.records import Candidate
from loraloom.store.disk import write_atomically
from loraloom.store.to_json import to_json
from loraloom.train.seat import Seat
from loraloom.train.sensitivity import Sensitivity
from loraloom.train.signals import pairs

Weights = dict[str, dict[str, float]]
"""By allocation and path of the layer."""


def measure_ranks(bench: Workbench, log: RunLog) -> None:
    """Give the plan the weights of every allocation that was asked for and has to be measured. They are
    kept in the run's folder; a run that goes on reads them there.

    Args:
        bench: of this process; where workers train elsewhere, another one is made and dropped.

    Raises:
        RunError: a measurement that finds no use for rank in any layer.
        StoreError: what a run that goes on had measured cannot be read.
    """
    prepared = log.prepared
    wanted = [one for one in allocations_asked(prepared.plan.case) if one in MEASURED_ALLOCATIONS]
    kept = log.folder.path / "ranks.json"
    found: Weights = {}
    if wanted and log.resumed:
        found = _read(kept, wanted)
    elif wanted:
        here = prepared.config.execute == "inline"
        found = measured_weights(bench if here else Workbench(prepared), wanted)
        write_atomically(kept, to_json(found))
    prepared.plan = replace(prepared.plan, rank_weights=found)
    if log.resumed:
        return
    for allocation in wanted:
        ranks = candidate(
            prepared.plan, "ranks", {names.RANK_ALLOCATION: allocation}
        ).adapter.rank_pattern
        log.recorder.note(f"ranks by {allocation}: {by_group(ranks)}")


def _read(kept: Path, wanted: Sequence[str]) -> Weights:
    """Raises StoreError for a file that is gone or was changed."""
    try:
        found: Weights = json.loads(kept.read_bytes())
        return {allocation: _weights(found[allocation]) for allocation in wanted}
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise StoreError(
            "what this run measured for its ranks cannot be read",
            where=str(kept),
            got=first_line(error),
            next="put the file back, or begin another run",
        ) from error


def _weights(kept: Mapping[str, float]) -> dict[str, float]:
    """Raises ValueError for numbers that no measurement gives."""
    weights = {path: float(weight) for path, weight in kept.items()}
    odd = next((f"{path}: {w}" for path, w in weights.items() if not 0 <= w < math.inf), None)
    if odd or not any(weights.values()):
        raise ValueError(odd or "no layer has a weight above 0")
    return weights


def measured_weights(bench: Workbench, wanted: Sequence[str]) -> Weights:
    """The weights of layers by each of these allocations.

    Raises:
        RunError: one of them finds no use for rank anywhere.
    """
    plan = bench.prepared.plan
    sizes = {linear.path: (linear.in_features, linear.out_features) for linear in plan.case.linears}
    found: Weights = {}
    importance: dict[str, Mapping[str, Sequence[float]]] = {}
    if {"energy", "adalora"} & set(wanted):
        importance |= trained_importance(bench)
    if "eva" in wanted:
        importance["eva"] = _variance(bench, list(sizes))
    for allocation in wanted:
        found[allocation] = most_important(importance[allocation], sizes, plan.settings.r)
        if not any(found[allocation].values()):
            raise RunError(
                f"`{names.RANK_ALLOCATION}: {allocation}` found no use for rank in any layer",
                next=f"--set {names.RANK_ALLOCATION}={UNIFORM}",
            )
    return found


def by_group(ranks: Mapping[str, int]) -> str:
    """The mean rank of each group of layers, in words."""
    groups: dict[str, list[int]] = {}
    for path, name in group_names(ranks).items():
        groups.setdefault(name, []).append(ranks[path])
    return "; ".join(f"{name} {fmean(given):.3g}" for name, given in groups.items())


def trained_importance(bench: Workbench) -> dict[str, dict[str, list[float]]]:
    """By "energy" and "adalora", how important each direction of each layer is after a short
    training."""
    trainer = bench.trainer
    made = _wide(bench)
    seat = trainer.join(made)
    steps = measured_steps(seat.planned_steps)
    usual, trainer.gauge = trainer.gauge, Sensitivity(bench.packed, bench.objective.metric)
    try:
        while seat.step < steps:
            trainer.tick()
        return {"energy": _energy(seat), "adalora": trainer.gauge.scores(seat)}
    finally:
        trainer.gauge = usual
        trainer.leave(made.id)
        trainer.free_memory()


def _wide(bench: Workbench) -> Candidate:
    """The plan's setting at twice its rank in every layer, with the same scale and B = 0 at first."""
    settings = bench.prepared.plan.settings
    stronger = TIMES**0.5 if settings[names.USE_RSLORA].value else TIMES
    params = {
        names.R: TIMES * settings.r,
        names.LORA_ALPHA: stronger * settings.alpha,
        names.RANK_ALLOCATION: UNIFORM,
        names.INIT_LORA_WEIGHTS: True,
    }
    return candidate(bench.prepared.plan, "ranks", params)


def _energy(seat: Seat) -> dict[str, list[float]]:
    """Squared singular values of each layer's update, for each parameter that a direction costs: what is
    kept of the update's energy is then as much as the budget can hold."""
    spec = seat.candidate.adapter
    a_by_path, b_by_path = pairs(seat.adapter, seat.adapter.arena.weights.cpu())
    found: dict[str, list[float]] = {}
    for path, a_RD in a_by_path.items():
        b_OR = b_by_path[path]
        scale = lora_scale(spec.alpha_pattern.get(path, spec.lora_alpha), len(a_RD), spec.use_rslora)
        energy_S = (scale * singular_values(a_RD, b_OR)).square() / (a_RD.shape[1] + len(b_OR))
        found[path] = energy_S.tolist()
    return found


def _variance(bench: Workbench, paths: Sequence[str]) -> dict[str, list[float]]:
    """The share of variance of each layer's inputs in each direction, on evenly spaced training rows."""
    prepared = bench.prepared
    rows = prepared.data.train[:: -(-len(prepared.data.train) // ROWS)]
    device = bench.packed.device
    batches = (
        collate([rows[i] for i in lot], bench.base.pad_id, prepared.task).to(device)
        for lot in by_length(rows)
    )
    most = TIMES * prepared.plan.settings.r
    with bench.packed.base_only() as model:
        return explained_variance(
            model, paths, batches, lambda batch: bench.objective.rows(model, batch), most
        )
