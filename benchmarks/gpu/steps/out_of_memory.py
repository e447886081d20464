"""Memory that runs out in the middle of a tick: the pack is halved and goes on, with the same losses.

torch is forbidden more memory than some of what the tick took before. On a processor, which has no such
limit, passes above half their tokens are refused in the same words.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch

from loraloom.records import Event
from loraloom.train.pack import PackTrainer
from steps.bench import Bench, Failed, tidy_up
from steps.training import build, engine, forget_peak, make_rows, pack_of, peak_bytes

TICKS = 3
ALLOWED = 0.6
"""Of what a tick takes beside what stays."""
TOLERANCE = 1e-3
"""Relative, of a loss in float32: products over other numbers of rows add up in another order."""


def measure(bench: Bench) -> None:
    bench.part("halved", lambda: halved(bench))


def halved(bench: Bench) -> dict[str, Any]:
    """Raises:
    Failed: nothing was halved, or the losses are others.
    """
    shape, tokens, packed = ("small", 8, 4) if bench.small else ("0.5B", 256, 16)
    model = build(shape, "float32", bench.device)

    def fresh() -> PackTrainer:
        trainer = engine(model, make_rows(tokens, model.config.vocab_size))
        pack_of(model, trainer, packed)
        trainer.tick()  # moments and tables are there from here on
        return trainer

    trainer = fresh()
    stays = torch.cuda.memory_allocated() if bench.on_cuda else 0
    forget_peak(bench)
    wanted = losses(sum((trainer.tick() for _ in range(TICKS)), list[Event]()))
    took = (peak_bytes(bench) or 0) - stays
    del trainer
    tidy_up()

    trainer = fresh()
    tidy_up()
    with limited(bench, trainer, stays + int(ALLOWED * took)):
        events = sum((trainer.tick() for _ in range(TICKS)), list[Event]())
    got, notes = losses(events), [str(event.data["text"]) for event in events if event.kind == "note"]
    distances = [abs(left - right) / abs(right) for left, right in zip(got, wanted, strict=False)]
    apart = max(distances) if len(got) == len(wanted) else None
    found = {
        "stays_bytes": stays,
        "tick_bytes": took,
        "notes": notes,
        "losses_apart": apart,
        "allowed": TOLERANCE,
    }
    if not notes:
        raise Failed("memory did not run out: nothing was halved", found)
    if apart is None or not apart <= TOLERANCE:
        raise Failed("the losses are others", found)
    return found


def losses(events: list[Event]) -> list[float]:
    """Of all steps, by step and candidate."""
    steps = sorted(
        (event.step or 0, event.trial or "", float(event.data["loss"]))
        for event in events
        if event.kind == "step"
    )
    return [loss for _, _, loss in steps]


@contextmanager
def limited(bench: Bench, trainer: PackTrainer, most_bytes: int) -> Generator[None]:
    """No more than so many bytes for torch; on a processor, no more than half the
    tokens of a tick for a pass."""
    if bench.on_cuda:
        _, total = torch.cuda.mem_get_info()
        torch.cuda.set_per_process_memory_fraction(min(1.0, most_bytes / total))
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        return
    run, most = trainer._run_pass, len(trainer.seats) // 2

    def refusing(group: Any, micro: Any) -> None:
        if len(group) > most:
            raise torch.OutOfMemoryError("CUDA out of memory, on a processor")
        run(group, micro)

    with mock.patch.object(trainer, "_run_pass", refusing):
        yield
