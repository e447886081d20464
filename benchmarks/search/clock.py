"""What a replay charges: measured CPU seconds of each piece of work, packed by our engine and alone by PEFT + Trainer.

Everything runs on one thread, so CPU seconds are what a machine with nothing else to do would show on the wall.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from tasks import BATCHES, SETTINGS, Task, settings_of, space_of
from trainer import Alone

from loraloom.plan.packing import Sample, fit_costs
from loraloom.search.space import BATCH, RANK

PACKS = (1, 2, 4, 8)
TICKS, REPEATS = 3, 3


@dataclass(frozen=True)
class Engine:
    """Our engine: a tick by candidates and rows, an evaluation and a join by candidates."""

    c0: float
    c_row: float
    c_candidate: float
    evaluation: float
    evaluation_candidate: float
    join: float

    def step(self, rows: Sequence[int]) -> float:
        """One step of every candidate; `rows`: the batch of each."""
        return self.c0 + self.c_row * sum(rows) + self.c_candidate * len(rows)

    def evaluate(self, candidates: int) -> float:
        return self.evaluation + self.evaluation_candidate * candidates

    def start(self) -> float:
        return self.join


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
    packs = [_pack(task, size, batch) for size in PACKS for batch in BATCHES]
    costs = fit_costs([one.tick for one in packs])
    misfit = max(abs(costs.seconds(one.tick.adapters, one.tick.tokens) / one.tick.seconds - 1) for one in packs)
    first, last = (median(one.evaluation for one in packs if one.tick.adapters == size) for size in (PACKS[0], PACKS[-1]))
    each = (last - first) / (PACKS[-1] - PACKS[0])
    join = median(one.join for one in packs)
    engine = Engine(costs.c0, costs.c1, costs.c2, max(first - each, 0.0), each, join)
    trainer = _alone(task, Alone(task))
    usual = trainer if task.base.model.dtype is torch.float32 else _alone(task, Alone(task, torch.float32))
    return Clock(engine, trainer, usual, peaks, misfit)


def _alone(task: Task, alone: Alone) -> Trainer:
    steps = {str(batch): alone.step_seconds(_setting(task, batch)) for batch in BATCHES}
    return Trainer(steps, alone.evaluation_seconds(), alone.startup_seconds(_setting(task, BATCHES[0])))


@dataclass(frozen=True)
class Timed:
    """A pack's tick (its `tokens` are rows), evaluation and join."""

    tick: Sample
    evaluation: float
    join: float


def _pack(task: Task, size: int, batch: int) -> Timed:
    """So many candidates with the same batch size."""
    pack, setting = task.trainer(), _setting(task, batch)
    made = [task.candidate(f"t{number}", setting, number) for number in range(size)]
    join = timed(lambda: [pack.join(one) for one in made]) / size
    pack.tick()
    tick = median(timed(lambda: [pack.tick() for _ in range(TICKS)]) / TICKS for _ in range(REPEATS))
    names = list(pack.seats)
    evaluation = median(timed(lambda: pack.evaluate(names)) for _ in range(REPEATS))
    for name in names:
        pack.leave(name)
    return Timed(Sample(size, size * batch, tick), evaluation, join)


def _setting(task: Task, batch: int) -> dict[str, Any]:
    """The middle of the space at a batch size, without dropout."""
    return next(
        params for params in settings_of(space_of(task.plan))
        if params[BATCH] == batch and params[RANK] == SETTINGS[RANK] and not params["adapter.lora_dropout"]
    )  # fmt: skip


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
