"""What a replay charges: measured CPU seconds of each piece of work, packed by our
engine and alone by PEFT + Trainer.

Everything runs on one thread, so CPU seconds are what a machine with nothing else to do
would show on the wall.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from tasks import Task, settings_of
from trainer import Alone

from loraloom.plan.packing import Sample, fit_costs
from loraloom.search.space import BATCH

PACKS = (1, 2, 4, 8)
TICKS, REPEATS = 3, 3
DRAWN = 8
"""Settings of each batch size that are timed: what a step takes goes by rank and modules too, and a
search meets them all."""


@dataclass(frozen=True)
class Engine:
    """Our engine: a tick by candidates and rows, an evaluation by candidates, a join,
    and to let one wait and go on."""

    c0: float
    c_row: float
    c_candidate: float
    evaluation: float
    evaluation_candidate: float
    join: float
    wait: float = 0.0
    again: float = 0.0

    def step(self, rows: Sequence[int]) -> float:
        """One step of every candidate; `rows`: the batch of each."""
        return self.c0 + self.c_row * sum(rows) + self.c_candidate * len(rows)

    def evaluate(self, candidates: int) -> float:
        return self.evaluation + self.evaluation_candidate * candidates

    def start(self) -> float:
        return self.join

    def pause(self) -> float:
        return self.wait

    def go_on(self) -> float:
        """A join at least."""
        return max(self.join, self.again)


@dataclass(frozen=True)
class Trainer:
    """PEFT + Trainer, one candidate at a time on a base that stays loaded."""

    step_by_batch: Mapping[str, float]
    evaluation: float
    startup: float

    def step(self, rows: Sequence[int]) -> float:
        return sum(self.step_by_batch[str(batch)] for batch in rows)

    def evaluate(self, candidates: int) -> float:
        return candidates * self.evaluation

    def start(self) -> float:
        return self.startup

    def pause(self) -> float:
        return 0.0

    def go_on(self) -> float:
        return self.startup


@dataclass(frozen=True)
class Clock:
    """Both ways to train, and what the searcher's own thinking takes.

    Attributes:
        trainer: in the precision that our engine has.
        usual: in float32, as PEFT comes: the same where that is our engine's precision too.
        peaks: most memory above the loaded base, in bytes, by way to train.
        misfit: largest relative error of the engine's formula on the ticks that it was fitted on.
    """

    engine: Engine
    trainer: Trainer
    usual: Trainer
    peaks: Mapping[str, int]
    misfit: float

    @classmethod
    def read(cls, path: Path, task: str) -> Clock:
        kept = json.loads(path.read_text())[task]
        trainer, usual = (Trainer(**kept[way]) for way in ("trainer", "usual"))
        return cls(Engine(**kept["engine"]), trainer, usual, kept["peaks"], kept["misfit"])

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def measure(task: Task, peaks: Mapping[str, int]) -> Clock:
    """Time every piece on this machine."""
    drawn = _drawn(task)
    packs = [_pack(task, size, batch, settings) for size in PACKS for batch, settings in drawn.items()]
    costs = fit_costs([one.tick for one in packs])
    misfit = max(
        abs(costs.seconds(one.tick.adapters, one.tick.tokens) / one.tick.seconds - 1) for one in packs
    )
    first, last = (
        median(one.evaluation for one in packs if one.tick.adapters == size)
        for size in (PACKS[0], PACKS[-1])
    )
    each = (last - first) / (PACKS[-1] - PACKS[0])
    join, wait, again = (
        median(getattr(one, what) for one in packs) for what in ("join", "wait", "again")
    )
    engine = Engine(costs.c0, costs.c1, costs.c2, max(first - each, 0.0), each, join, wait, again)
    trainer = _alone(Alone(task), drawn)
    usual = (
        trainer
        if task.bench.base.model.dtype is torch.float32
        else _alone(Alone(task, torch.float32), drawn)
    )
    return Clock(engine, trainer, usual, peaks, misfit)


def _drawn(task: Task) -> dict[int, list[dict[str, Any]]]:
    """Settings of the grid by batch size, drawn without regard to what they are."""
    by_batch: dict[int, list[dict[str, Any]]] = {}
    for params in settings_of(task.space):
        by_batch.setdefault({**task.plan, **params}[BATCH], []).append(params)
    return {batch: random.Random(0).sample(settings, DRAWN) for batch, settings in by_batch.items()}


def _alone(alone: Alone, drawn: Mapping[int, Sequence[dict[str, Any]]]) -> Trainer:
    few = {batch: settings[: DRAWN // 2] for batch, settings in drawn.items()}
    steps = {str(batch): mean(map(alone.step_seconds, settings)) for batch, settings in few.items()}
    startups = [alone.startup_seconds(params) for settings in few.values() for params in settings]
    return Trainer(steps, alone.evaluation_seconds(), mean(startups))


@dataclass(frozen=True)
class Timed:
    """A pack's tick (its `tokens` are rows), its evaluation, and of one candidate what
    it takes to join, to wait, to go on."""

    tick: Sample
    evaluation: float
    join: float
    wait: float
    again: float


def _pack(task: Task, size: int, batch: int, settings: Sequence[dict[str, Any]]) -> Timed:
    """So many candidates at a time until all settings were in a pack: means over the packs."""
    found = [
        _timed_pack(task, settings[start : start + size]) for start in range(0, len(settings), size)
    ]
    tick, *others = (mean(values) for values in zip(*found, strict=True))
    return Timed(Sample(size, size * batch, tick), *others)


def _timed_pack(task: Task, settings: Sequence[dict[str, Any]]) -> tuple[float, ...]:
    """Seconds of a tick and of the rest of `Timed`."""
    pack = task.trainer()
    made = [task.candidate(f"t{number}", params, number) for number, params in enumerate(settings)]
    join = timed(lambda: [pack.join(one) for one in made])
    pack.tick()
    tick = median(timed(lambda: [pack.tick() for _ in range(TICKS)]) / TICKS for _ in range(REPEATS))
    names = list(pack.seats)
    evaluation = median(timed(lambda: pack.evaluate(names)) for _ in range(REPEATS))
    wait, again = (
        timed(lambda: [pack.pause(name) for name in names]),
        timed(lambda: [pack.go_on(name) for name in names]),
    )
    for name in names:
        pack.leave(name)
    return tick, evaluation, *(seconds / len(names) for seconds in (join, wait, again))


def timed(work: Callable[[], object]) -> float:
    """CPU seconds."""
    began = time.process_time()
    work()
    return time.process_time() - began


def peak_of(work: Callable[[], object]) -> int:
    """Bytes that the process held at most above what it held before."""
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    work()
    return max(0, _status("VmHWM") - before)


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))
