"""Train configurations: many at a time for accuracy (each is as it would be alone), one
at a time for memory and seconds."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from configurations import CONFIGURATIONS, DEFAULT, Configuration, task_values

from loraloom.config.decode import load_config
from loraloom.config.names import QUANTIZATION
from loraloom.evals.objective import objective_for
from loraloom.lora.base import Base, share_copy
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
    """A configuration by itself, or several candidates of it at once.

    Attributes:
        peak_bytes: at most, above the loaded base.
        base_bytes: what the base's numbers take.
        epoch_seconds: CPU seconds of an epoch of all candidates.
        parameters: trained, of one candidate; `share` of all that it has.
    """

    packed: int
    peak_bytes: int
    base_bytes: int
    epoch_seconds: float
    parameters: int
    share: float


@dataclass(frozen=True)
class Ready:
    """The task planned and its base loaded, as one way to hold the base wants it."""

    prepared: Prepared
    base: Base

    def trainer(self) -> PackTrainer:
        """An empty pack over the frozen base."""
        base, data = self.base, self.prepared.data
        packed = PackedModel(share_copy(base.model), fresh_modules=base.fresh_modules)
        return PackTrainer(
            packed,
            data.train,
            objective_for(self.prepared.task, base.model),
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


class Bench:
    """The task; each base is loaded once."""

    def __init__(self, data: Path, work: Path) -> None:
        self._values = task_values(data, work)
        self.ready = cache(self._ready)

    def _ready(self, quantization: str) -> Ready:
        default = next(made for made in CONFIGURATIONS if made.name == DEFAULT)
        values = {**self._values, **default.values, QUANTIZATION: quantization}
        prepared = prepare(load_config(None, values))
        return Ready(prepared, prepared.load_base())

    def train(self, asked: Sequence[Asked]) -> list[Trained]:
        """All of them to their ends, in packs of those whose base is held alike."""
        found: dict[int, Trained] = {}
        for held in dict.fromkeys(one.configuration.values[QUANTIZATION] for one in asked):
            own = {
                number: one
                for number, one in enumerate(asked)
                if one.configuration.values[QUANTIZATION] == held
            }
            found |= self._train(self.ready(held), own)
        return [found[number] for number in sorted(found)]

    def _train(self, ready: Ready, asked: Mapping[int, Asked]) -> dict[int, Trained]:
        pack, waiting, data = ready.trainer(), dict(asked), ready.prepared.data
        found: dict[int, Trained] = {}
        while waiting or pack.seats:
            while waiting and len(pack.seats) < PACK:
                number = min(waiting)
                pack.join(ready.candidate(str(number), waiting.pop(number)))
            pack.tick()
            ended = pack.finished()
            if ended:
                known = pack.evaluate(ended, "validation", data.validation)
                tests = pack.evaluate(ended, "test", data.test)
                for name in ended:
                    numel = pack.leave(name).adapter.arena.numel
                    found[int(name)] = Trained(asked[int(name)], known[name], tests[name], numel)
        return found

    def alone(self, configuration: Configuration, rate: float, packed: int = 1) -> Alone:
        """One training by itself, or so many seeds of it at once, as far as memory and seconds need it.
        To be called in a process of its own."""
        ready = self.ready(configuration.values[QUANTIZATION])
        pack = ready.trainer()
        before = _status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        seats = [
            pack.join(ready.candidate(f"alone{seed}", Asked(configuration, rate, seed)))
            for seed in range(packed)
        ]
        for _ in range(2):
            pack.tick()
        began = time.process_time()
        for _ in range(SOLO_STEPS):
            pack.tick()
        step = (time.process_time() - began) / SOLO_STEPS
        parameters = seats[0].adapter.arena.numel
        return Alone(
            packed,
            max(0, _status("VmHWM") - before),
            ready.base.stored_bytes,
            step * seats[0].order.steps_per_epoch,
            parameters,
            parameters / (ready.base.parameters + parameters),
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
