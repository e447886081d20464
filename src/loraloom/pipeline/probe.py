"""`loraloom plan --probe`: run a little of the planned work, and put what was measured
in place of the forecast."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from statistics import fmean

from loraloom.config.asked import Config
from loraloom.data.joined import row_lengths
from loraloom.data.rows import Example
from loraloom.errors import MemoryBudgetError
from loraloom.evals.preference import task_objective
from loraloom.facts.speed import cores_share_now
from loraloom.lora.base import Base, share_copy
from loraloom.lora.packed import PackedModel
from loraloom.pipeline.device_errors import device_errors
from loraloom.pipeline.joining import join_pairs
from loraloom.pipeline.preflight.rehearsal import rehearse, with_rows_beside
from loraloom.pipeline.prepare import Prepared, prepare
from loraloom.plan.correction import Corrected, by_probe
from loraloom.plan.numbers import bytes_text
from loraloom.plan.planner import candidate
from loraloom.plan.time import seconds_at, with_measured
from loraloom.records import built_as
from loraloom.train.pack import PackTrainer

TICKS = 10
"""Micro-steps that are timed, after one that is not: the first pays for buffers and kernels."""
HELD_OUT = 64
"""Validation rows that are scored, spread over all of them, and timed when they are scored again."""
PASSES = 6
"""Most steps of the longest batch."""


@dataclass(frozen=True)
class Timing:
    """What was timed: (tokens, seconds) of each micro-step of the whole pack, tokens of one on average
    over all training rows, and seconds of one evaluation on all validation rows."""

    ticks: tuple[tuple[int, float], ...]
    usual_tokens: float
    evaluation_seconds: float

    @property
    def tick_seconds(self) -> float:
        """Of a micro-step of as many tokens as there are on average."""
        return seconds_at(self.usual_tokens, self.ticks)


@device_errors()
def probe(config: Config) -> Prepared:
    """Plan, take steps on the longest batch as a run does, time a few micro-steps and
    an evaluation, and plan with that.

    Raises:
        MemoryBudgetError: memory ran out.
        RequestError: as in `prepare`, weights included.
    """
    prepared = prepare(config, race=True)
    plan = prepared.plan
    load = cache(prepared.load_base)
    data = with_rows_beside(prepared.data, prepared.replay, prepared.retain)
    rehearsal = rehearse(load, plan, data, passes=PASSES)
    if rehearsal.ran_out:
        raise MemoryBudgetError(
            f"memory ran out in a probe of {rehearsal.rows} rows of {rehearsal.length:,} tokens",
            got=f"a forecast of {bytes_text(plan.forecast['memory'].value)}",
            next="loraloom check: it names the largest batch that fits",
        )
    memory = by_probe(plan.forecast["memory"], rehearsal.peak_bytes)
    base = load()
    before = cores_share_now(plan.facts.device.kind)
    timing = timed(prepared, base)
    share = fmean((before, cores_share_now(plan.facts.device.kind)))
    return with_timing(prepared, memory, timing, share)


def with_timing(prepared: Prepared, memory: Corrected, timing: Timing, share: float) -> Prepared:
    """The plan with what was measured in place of its forecasts: memory as it is, time
    as an idle machine would take.

    Args:
        share: of the cores, what other processes left while it was timed.
    """
    plan = prepared.plan
    tick_seconds = share * timing.tick_seconds
    evaluation_seconds = share * timing.evaluation_seconds
    seconds = with_measured(plan.forecast["time"], plan.case, tick_seconds, evaluation_seconds)
    note = f"a micro-step took {timing.tick_seconds:.3g} seconds, measured over {len(timing.ticks)}"
    if share < 1:
        note += (
            f", while others had {1 - share:.0%} of the cores: {share * timing.tick_seconds:.3g} when"
            " the machine is idle"
        )
    notes = (*plan.notes, memory.note, note)
    forecast = {**plan.forecast, "memory": memory.estimate, "time": seconds}
    facts = replace(plan.facts, device=replace(plan.facts.device, share=share))
    return replace(
        prepared, facts=facts, plan=replace(plan, facts=facts, forecast=forecast, notes=notes)
    )


def timed(prepared: Prepared, base: Base, clock: Callable[[], float] = time.perf_counter) -> Timing:
    """Time a few micro-steps of the plan's whole pack, and an evaluation of it; what is
    trained is thrown away."""
    plan = prepared.plan
    data = prepared.data
    held_out = _spread(prepared.data.validation, HELD_OUT)
    packed = PackedModel(share_copy(base.model), fresh_modules=base.fresh_modules)
    objective = task_objective(
        data.task, base.model, packed, pad_id=base.pad_id, token_budget=plan.token_budget
    )
    join_pairs(objective, plan, data)
    trainer = PackTrainer(
        packed,
        data.train,
        objective,
        task=built_as(data.task),
        pad_id=base.pad_id,
        validation=held_out,
        token_budget=plan.token_budget,
        checkpointing=plan.settings.checkpointing,
        workers=plan.workers,
    )
    seats = [
        trainer.join(candidate(plan, f"probe{number}", {}, seed_offset=number))
        for number in range(plan.pack_size)
    ]

    def timed_once(run: Callable[[], object]) -> tuple[int, float]:
        before = sum(seat.tokens for seat in seats)
        started = clock()
        run()
        return sum(seat.tokens for seat in seats) - before, clock() - started

    ticks = [timed_once(trainer.tick) for _ in range(TICKS + 1)][1:]
    scored = [
        timed_once(lambda: trainer.evaluate(list(trainer.seats))) for _ in range(2 if held_out else 0)
    ]
    evaluation_seconds = scored[-1][1] * len(data.validation) / len(held_out) if scored else 0.0
    return Timing(
        tuple(ticks),
        plan.pack_size * _usual_tokens(prepared, joined=objective.joined),
        evaluation_seconds,
    )


def _usual_tokens(prepared: Prepared, *, joined: bool) -> float:
    """Tokens of one candidate's micro-batch, on average over all training rows."""
    rows = prepared.data.train
    micro = min(prepared.plan.settings.micro_batch, len(rows))
    return micro * sum(sum(row_lengths(row, joined=joined)) for row in rows) / len(rows)


def _spread(rows: Sequence[Example], count: int) -> tuple[Example, ...]:
    """At most `count` rows, evenly from the first to the last."""
    return tuple(rows[:: -(-len(rows) // count)]) if rows else ()
