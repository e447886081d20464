"""Steps on one batch, the longest, forwards and backwards through the real model, and a
pass that only scores.

B starts at zero and has moved when the second step begins: then every tensor of an adapter must have a
gradient. The order is that of a run, whose first pass is a full one too: what is made in it and stays
lies between what it frees, and later passes spread over the pieces. More steps than two are taken while
the peak still grows by that. The weights are thrown away; nothing is written.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import psutil
import torch

from loraloom.data.batches import Numbers
from loraloom.data.encode import Encoded
from loraloom.data.joined import padded_tokens, row_lengths
from loraloom.data.rows import Example, Row
from loraloom.evals.preference import task_objective
from loraloom.evals.scoring import EVALUATION_FACTOR
from loraloom.lora.arena import Arena, Entry
from loraloom.lora.base import Base, share_copy
from loraloom.lora.device_faults import is_out_of_memory
from loraloom.lora.freed_memory import free_memory
from loraloom.lora.neftune import noisy_embeddings
from loraloom.lora.packed import PackedModel
from loraloom.lora.transfer import fetch, send
from loraloom.pipeline.joining import join_pairs
from loraloom.plan.memory import STATE
from loraloom.plan.planner import Plan, candidate
from loraloom.records import built_as
from loraloom.train.divergence import first_bad, largest_outputs, last_bad_gradient
from loraloom.train.pack import PackTrainer
from loraloom.train.seat import Pass, Seat, assemble

SAMPLING_SECONDS = 0.002
PASSES = 2
"""Steps that show whether a plan can be trained."""
SETTLED = 0.005
"""The peak has settled once a further step raises it by no more than this share."""
SECONDS = 60.0
"""No step beyond the first two is begun after so long."""


@dataclass(frozen=True)
class Rehearsal:
    """What the passes showed.

    Attributes:
        rows, length: of the largest pass.
        loss: mean over the batch, in nats.
        peak_bytes: most that was held at once, with the state of every candidate that
            is to train at once.
        held_bytes: what this process held before (0 on an accelerator).
        ran_out: memory ran out.
        bad_layer: the first layer whose output, or the last whose gradient, was not finite.
        tensors: how many an adapter has.
        silent: those without a gradient.
        unmoved: whether every B is still zero after the last step.
        absent: parameters of the model that hold no numbers ("meta").
    """

    rows: int
    length: int
    loss: float = math.nan
    peak_bytes: int = 0
    held_bytes: int = 0
    ran_out: bool = False
    bad_layer: str | None = None
    tensors: int = 0
    silent: tuple[str, ...] = ()
    unmoved: bool = False
    absent: tuple[str, ...] = ()


@dataclass
class Peak:
    """The most that was held while it was watched."""

    bytes: int = 0
    before: int = 0


@dataclass(frozen=True)
class _Size:
    """Of a pass: examples of one candidate, tokens of the longest one, and candidates."""

    examples: tuple[Example, ...]
    length: int
    candidates: int


@dataclass
class _Passes:
    """What is known after the passes, filled in as they go."""

    size: _Size
    loss: float = math.nan
    bad_layer: str | None = None
    tensors: int = 0
    silent: list[str] = field(default_factory=list[str])
    unmoved: bool = False


def with_rows_beside(data: Encoded, replay: Sequence[Row], retain: Sequence[Row]) -> Encoded:
    """The data with what is trained on, and scored, beside them. What a run on pairs of answers retains
    is scored apart from the pairs, and left out here.

    Args:
        replay: rows that may be trained on too; retain: rows that are scored too.
    """
    if retain and not isinstance(data.train[0], Row):
        retain = ()
    return replace(data, train=(*data.train, *replay), validation=(*data.validation, *retain))


def rehearse(load: Callable[[], Base], plan: Plan, data: Encoded, passes: int = PASSES) -> Rehearsal:
    """Take steps of this plan's largest size, and score the longest held-out rows after the second.

    Args:
        load: gives the frozen base; it counts as part of what is held.
        data: cut to the plan's length, with all rows that a step may take (`with_rows_beside`).
        passes: most steps; those beyond the first two are taken only as long as the peak grows.

    Raises:
        ModelError: the model cannot take such an adapter.
    """
    made = candidate(plan, "check", {})
    micro = min(made.training.per_device_train_batch_size, len(data.train))
    found = _Passes(_largest(plan, data, micro, joined=False))
    absent = tuple[str, ...]()
    with peak_memory(plan.facts.device.kind) as peak:
        base = load()
        absent = tuple(name for name, parameter in base.model.named_parameters() if parameter.is_meta)
        ran_out = not absent and not _try(
            lambda: _run(base, plan, data, micro, found, peak, passes), base.model.device
        )
    state = _state_bytes(plan) * (plan.pack_size - found.size.candidates)
    return Rehearsal(
        rows=found.size.candidates * micro,
        length=found.size.length,
        loss=found.loss,
        peak_bytes=peak.bytes + state,
        held_bytes=peak.before,
        ran_out=ran_out,
        bad_layer=found.bad_layer,
        tensors=found.tensors,
        silent=tuple(found.silent),
        unmoved=found.unmoved,
        absent=absent,
    )


def _largest(plan: Plan, data: Encoded, micro: int, *, joined: bool) -> _Size:
    """The largest pass of a run.

    Args:
        joined: pairs are one row each.
    """
    chosen = _longest(data.train, micro, joined=joined)
    length = max(sum(row_lengths(one, joined=joined)) for one in chosen)
    beside = min(plan.pack_size, max(1, plan.token_budget // (micro * length)))
    return _Size(chosen, length, beside)


def _run(
    base: Base, plan: Plan, data: Encoded, micro: int, found: _Passes, peak: Peak, passes: int
) -> None:
    """Steps of as many candidates as share the largest pass, and one evaluation after the second."""
    full = EVALUATION_FACTOR * plan.token_budget
    packed = PackedModel(share_copy(base.model), fresh_modules=base.fresh_modules)
    objective = task_objective(
        data.task, base.model, packed, pad_id=base.pad_id, token_budget=plan.token_budget
    )
    join_pairs(objective, plan, data)
    size = _largest(plan, data, micro, joined=objective.joined)
    found.size = size
    scored = max(1, full // (size.candidates * size.length))
    trainer = PackTrainer(
        packed,
        size.examples,
        objective,
        task=built_as(data.task),
        pad_id=base.pad_id,
        token_budget=plan.token_budget,
        validation=_longest(data.validation or data.train, scored, joined=objective.joined),
        checkpointing=plan.settings.checkpointing,
        workers=plan.workers,
    )
    made = candidate(plan, "check", {})
    training = replace(
        made.training,
        per_device_train_batch_size=len(size.examples),
        gradient_accumulation_steps=1,
        max_steps=passes,
        evaluations=1,
    )
    seats = [
        trainer.join(replace(made, id=f"check{number}", training=training, start=None))
        for number in range(size.candidates)
    ]
    started = time.monotonic()
    for number in range(passes):
        before = peak.bytes
        _step(trainer, seats, found)
        if number == PASSES - 1 and found.bad_layer is None:
            trainer.evaluate([seat.id for seat in seats])
        if number >= PASSES and (
            peak.bytes <= (1 + SETTLED) * before or time.monotonic() - started > SECONDS
        ):
            break
    arena = seats[0].adapter.arena
    found.tensors = len(arena.entries)
    found.unmoved = not any(
        bool(arena.weight(entry).any()) for entry in arena.entries if entry.group == "lora_B"
    )


def _step(trainer: PackTrainer, seats: Sequence[Seat], found: _Passes) -> None:
    """One pass of these candidates and a step of each."""
    one = _window(trainer, seats)
    found.loss = _pass(trainer, one)
    found.bad_layer = found.bad_layer or _bad_layer(trainer, seats, one, found.loss)
    found.silent = [entry.key for entry in _silent(seats[0].adapter.arena)]
    for seat in seats:
        seat.optimizer.step(seat.candidate.training.learning_rate)
        seat.adapter.refresh()
        seat.close_window()


def _window(trainer: PackTrainer, seats: Sequence[Seat]) -> Pass:
    """The next pass of these candidates."""
    micro: dict[str, Numbers] = {}
    for seat in seats:
        seat.open_window(trainer.weights)
        micro[seat.id] = seat.window[0]
        seat.window_weight = float(sum(trainer.weights[i] for i in micro[seat.id]))
    joined = trainer.objective.joined
    return assemble(seats, micro, trainer.rows, trainer.pad_id, trainer.task, joined=joined)


def _pass(trainer: PackTrainer, one: Pass) -> float:
    """Forward and backward; the mean loss of the candidates."""
    batch = one.batch.to(trainer.packed.device)
    with trainer.packed.route(one.routing) as model, noisy_embeddings(model, one.noises):
        result = trainer.objective.rows(model, batch)
        weighted = result.loss * send(one.shares.to(result.loss.dtype), trainer.packed.device)
        weighted.sum().backward()
    return float(weighted.detach().sum()) / len(one.routing.segments)


def _bad_layer(trainer: PackTrainer, seats: Sequence[Seat], one: Pass, loss: float) -> str | None:
    """The layer to blame where the loss or a gradient is not finite."""
    layers = trainer.packed.layers()
    if not math.isfinite(loss):
        batch = one.batch.to(trainer.packed.device)
        with trainer.packed.route(one.routing) as model:
            outputs = largest_outputs(layers, lambda: trainer.objective.rows(model, batch))
        return first_bad(outputs) or "the loss itself"
    return next(
        (bad for seat in seats if (bad := last_bad_gradient(seat.adapter.arena, list(layers)))), None
    )


def _silent(arena: Arena) -> list[Entry]:
    moved = fetch([arena.grad(entry).any() for entry in arena.entries])
    return [entry for entry, any_moved in zip(arena.entries, moved, strict=True) if not any_moved]


def _longest(examples: Sequence[Example], count: int, *, joined: bool) -> tuple[Example, ...]:
    """The `count` longest rows."""

    def size(one: Example) -> tuple[int, int]:
        return padded_tokens(one, joined=joined), max(len(side.labels) for side in one.sides)

    return tuple(sorted(examples, key=size, reverse=True)[:count])


def _state_bytes(plan: Plan) -> int:
    """What one more candidate holds beside its part of a pass."""
    parts = plan.forecast["memory"].parts
    return round(sum(parts[name] for name in STATE) / plan.pack_size)


def _try(run: Callable[[], None], device: torch.device) -> bool:
    """False when memory ran out."""
    try:
        run()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    else:
        return True
    free_memory(device)
    return False


@contextmanager
def peak_memory(kind: str) -> Generator[Peak]:
    """The peak of this process (CPU: sampled from its resident size) or of torch's
    allocator (CUDA), inside the block."""
    peak = Peak()
    if kind == "cuda":
        torch.cuda.reset_peak_memory_stats()
        yield peak
        peak.bytes = int(torch.cuda.max_memory_allocated())
        return
    process = psutil.Process()
    stop = threading.Event()
    peak.before = peak.bytes = int(process.memory_info().rss)

    def watch() -> None:
        while not stop.wait(SAMPLING_SECONDS):
            peak.bytes = max(peak.bytes, int(process.memory_info().rss))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()
        peak.bytes = max(peak.bytes, int(process.memory_info().rss))
