"""Train configurations: many at a time for accuracy (each is as it would be alone), one
at a time for memory and seconds."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from configurations import CONFIGURATIONS, Configuration, task_values

from loraloom.config.decode import load_config
from loraloom.evals.objective import objective_for
from loraloom.lora.base import share_copy
from loraloom.lora.packed import PackedModel
from loraloom.pipeline.prepare import Prepared, prepare
from loraloom.plan.planner import candidate
from loraloom.records import Candidate, Score
from loraloom.search.space import RATE
from loraloom.train.pack import PackTrainer

PACK = 10
SOLO_STEPS = 40
"""Steps that memory and seconds are measured over, after two that warm up."""


@dataclass(frozen=True)
class Asked:
    """One training: a configuration at a rate with a seed."""

    configuration: Configuration
    rate: float
    seed: int


@dataclass(frozen=True)
class Trained:
    """What came of it, at its last step."""

    asked: Asked
    validation: Score
    test: Score
    parameters: int


@dataclass(frozen=True)
class Alone:
    """A configuration by itself: bytes above the loaded base at most, CPU seconds of an
    epoch, and what is trained."""

    peak_bytes: int
    epoch_seconds: float
    parameters: int
    share: float


class Bench:
    """The task, loaded once."""

    def __init__(self, data: Path, work: Path) -> None:
        self._values = task_values(data, work)

    @cached_property
    def prepared(self) -> Prepared:
        return prepare(load_config(None, {**self._values, **CONFIGURATIONS[1].values}))

    @cached_property
    def base(self) -> Any:
        return self.prepared.load_base()

    def trainer(self) -> PackTrainer:
        """An empty pack over the frozen base."""
        base, data = self.base, self.prepared.data
        packed = PackedModel(share_copy(base.model), fresh_modules=base.fresh_modules)
        objective = objective_for(self.prepared.task, base.model)
        return PackTrainer(
            packed,
            data.train,
            objective,
            task=self.prepared.task,
            pad_id=base.pad_id,
            validation=data.validation,
            decide_by="accuracy",
            token_budget=self.prepared.plan.token_budget,
            signals=False,
        )

    def candidate(self, name: str, asked: Asked) -> Candidate:
        return candidate(
            self.prepared.plan,
            name,
            {**asked.configuration.values, RATE: asked.rate},
            seed_offset=asked.seed,
        )

    def train(self, asked: Sequence[Asked]) -> list[Trained]:
        """All of them to their ends, in packs."""
        pack, waiting = self.trainer(), dict(enumerate(asked))
        found: dict[int, Trained] = {}
        while waiting or pack.seats:
            while waiting and len(pack.seats) < PACK:
                number = min(waiting)
                pack.join(self.candidate(str(number), waiting.pop(number)))
            pack.tick()
            ended = pack.finished()
            if ended:
                known = pack.evaluate(ended, "validation", self.prepared.data.validation)
                tests = pack.evaluate(ended, "test", self.prepared.data.test)
                for name in ended:
                    numel = pack.leave(name).adapter.arena.numel
                    found[int(name)] = Trained(asked[int(name)], known[name], tests[name], numel)
        return [found[number] for number in sorted(found)]

    def alone(self, configuration: Configuration, rate: float) -> Alone:
        """One training by itself, as far as memory and seconds need it. To be called in
        a process of its own."""
        pack = self.trainer()
        before = _status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        seat = pack.join(self.candidate("alone", Asked(configuration, rate, 0)))
        for _ in range(2):
            pack.tick()
        began = time.process_time()
        for _ in range(SOLO_STEPS):
            pack.tick()
        step = (time.process_time() - began) / SOLO_STEPS
        parameters = seat.adapter.arena.numel
        share = parameters / (self.base.parameters + parameters)
        return Alone(
            max(0, _status("VmHWM") - before), step * seat.order.steps_per_epoch, parameters, share
        )


def tuned_rates(first: Sequence[Trained]) -> Mapping[str, float]:
    """For each configuration the rate with the best validation accuracy; of equals the
    one with the lower loss."""

    def order(one: Trained) -> tuple[float, float]:
        metrics = one.validation.metrics
        loss = metrics["loss"]
        return -metrics["accuracy"], loss if math.isfinite(loss) else math.inf

    names = dict.fromkeys(one.asked.configuration.name for one in first)
    best = {
        name: min((one for one in first if one.asked.configuration.name == name), key=order)
        for name in names
    }
    return {name: one.asked.rate for name, one in best.items()}


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))
