"""Before the search: time a few ticks with throwaway candidates, and decide from them
how many train at once."""

from __future__ import annotations

import time
from dataclasses import dataclass

from loraloom.lora.device_faults import is_out_of_memory
from loraloom.pipeline.candidates import job
from loraloom.pipeline.run_log import RunLog
from loraloom.pipeline.workbench import Workbench
from loraloom.plan.packing import PackPlan, Sample, fit_costs, plan_pack

TICKS = 2
"""Timed ticks of each size, after one that is not: the first pays for buffers."""


@dataclass(frozen=True)
class TimedPacks:
    """What timing came to.

    Attributes:
        pack_size: how many candidates train at once here.
        plan: how that follows from the times; None where nothing was timed.
        note: that memory ran out on the way.
    """

    pack_size: int
    plan: PackPlan | None = None
    note: str | None = None


def plan_of_packs(bench: Workbench, log: RunLog) -> int:
    """How many candidates to train at once; told as an event of kind "plan"."""
    found = timed_packs(bench)
    if found.note:
        log.recorder.note(found.note)
    if found.plan:
        report(log, found.plan)
    return found.pack_size


def timed_packs(bench: Workbench) -> TimedPacks:
    """How many candidates to train at once.

    A number that the user asked for is kept. Otherwise ticks of 1, 2, 4, ... throwaway candidates of the
    plan's setting are timed, up to what memory holds, and the smallest pack that is as good as the
    fastest is taken.
    """
    most = bench.prepared.plan.pack_size
    if bench.prepared.config.limits.max_packed != "auto" or most < 2:
        return TimedPacks(most)
    sizes = [size for size in (1, 2, 4, 8, 16, 32) if size < most] + [most]
    samples = timed_ticks(bench, sizes[0])
    note = None
    for size, smaller in zip(sizes[1:], sizes, strict=False):
        more = _timed_if_they_fit(bench, size)
        if more is None:
            note = f"memory ran out when {size} were tried at once: {smaller} are the most"
            most = smaller
            break
        samples += more
    made = plan_pack(fit_costs(samples), samples[0].tokens, most)
    return TimedPacks(made.pack_size, made, note)


def _timed_if_they_fit(bench: Workbench, size: int) -> list[Sample] | None:
    """The same as `timed_ticks`; None where memory runs out."""
    try:
        return timed_ticks(bench, size)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    bench.trainer.free_memory()
    return None


def timed_ticks(bench: Workbench, size: int) -> list[Sample]:
    """Time ticks of `size` throwaway candidates; they leave as if they had never been."""
    trainer = bench.trainer
    names = [f"warmup{number}" for number in range(size)]
    samples: list[Sample] = []
    try:
        for name in names:
            trainer.join(job(bench.prepared, name, {}, role="warmup").candidate)
        trainer.tick()
        for _ in range(TICKS):
            before = sum(seat.tokens for seat in trainer.seats.values())
            started = time.perf_counter()
            trainer.tick()
            seconds = time.perf_counter() - started
            samples.append(
                Sample(size, sum(seat.tokens for seat in trainer.seats.values()) - before, seconds)
            )
    finally:
        for name in names:
            if name in trainer.seats:
                trainer.leave(name)
    return samples


def report(log: RunLog, made: PackPlan) -> None:
    """Tell what was measured and decided."""
    costs = made.costs
    log.recorder.emit(
        "plan",
        slots=made.pack_size,
        tokens_per_second=made.rate,
        tokens_per_second_alone=made.alone,
        tick_seconds=costs.c0,
        token_seconds=costs.c1,
        adapter_seconds=costs.c2,
    )
    log.recorder.note(made.sentence)
