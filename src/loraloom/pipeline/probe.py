"""`loraloom plan --probe`: run a little of the planned work, and put what was measured in place of the forecast."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache

from loraloom.config.asked import Config
from loraloom.errors import MemoryBudgetError
from loraloom.evals.objective import objective_for
from loraloom.lora.base import Base, share_copy
from loraloom.lora.packed import PackedModel
from loraloom.pipeline.preflight.rehearsal import rehearse
from loraloom.pipeline.prepare import Prepared, prepare
from loraloom.plan.basis import bytes_text
from loraloom.plan.correction import by_probe
from loraloom.plan.planner import candidate
from loraloom.plan.time import with_measured_tick
from loraloom.train.pack import PackTrainer

TICKS = 10
"""Micro-steps that are timed, after one that is not: the first pays for buffers and kernels."""


def probe(config: Config) -> Prepared:
    """Plan, run the longest batch forwards, backwards and through a step, time a few micro-steps, and plan with that.

    Raises:
        MemoryBudgetError: memory ran out.
        RequestError: as in `prepare`, weights included.
    """
    prepared = prepare(config)
    plan, load = prepared.plan, cache(prepared.load_base)
    rehearsal = rehearse(load, plan, prepared.data)
    if rehearsal.ran_out:
        raise MemoryBudgetError(
            f"memory ran out in a probe of {rehearsal.rows} rows of {rehearsal.length:,} tokens",
            got=f"a forecast of {bytes_text(plan.forecast['memory'].value)}",
            next="loraloom check: it names the largest batch that fits",
        )
    memory = by_probe(plan.forecast["memory"], rehearsal.peak_bytes)
    ticks = timed_ticks(prepared, load())
    seconds = with_measured_tick(plan.forecast["time"], plan.facts, config, plan.settings, sum(ticks) / len(ticks))
    notes = (*plan.notes, memory.note, f"a micro-step took {sum(ticks) / len(ticks):.3g} seconds, measured over {len(ticks)}")
    forecast = {**plan.forecast, "memory": memory.estimate, "time": seconds}
    return replace(prepared, plan=replace(plan, forecast=forecast, notes=notes))


def timed_ticks(
    prepared: Prepared, base: Base, ticks: int = TICKS, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Seconds of each of a few micro-steps of the plan's whole pack; what is trained is thrown away."""
    plan, data = prepared.plan, prepared.data
    trainer = PackTrainer(
        PackedModel(share_copy(base.model), fresh_modules=base.fresh_modules, prepack=plan.prepack), data.train,
        objective_for(data.task, base.model, prepack=plan.prepack), task=data.task, pad_id=base.pad_id,
        token_budget=plan.token_budget, checkpointing=bool(plan.values()["training.gradient_checkpointing"]),
        workers=plan.workers,
    )  # fmt: skip
    for number in range(plan.slots):
        trainer.join(candidate(plan, f"probe{number}", {}, seed_offset=number))
    trainer.tick()
    seconds: list[float] = []
    for _ in range(ticks):
        started = clock()
        trainer.tick()
        seconds.append(clock() - started)
    return seconds
