"""Our pruners keep what they have worked out from one report to the next. Whatever happens in a search,
they decide as the plain rules do, which work all out anew."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from plain_pruners import Decisions, careful, wide

from loraloom.records import Score
from loraloom.search.curves import TrialCurve
from loraloom.search.pruners.halving import HalvingPruner
from loraloom.search.pruners.rungs import RungPruner
from loraloom.search.values import AskedTrial, Observation, Verdict

SEED, ROWS = 5, 24
SHAPES = (("linear", 0.06), ("linear", 0.06), ("cosine", 0.06))


class Chance:
    """A search in which everything happens by chance: trials are asked in waves,
    report, fail, begin anew, end, go on."""

    def __init__(self, seed: int, trials: int) -> None:
        self.dice, self.rng, self.trials = random.Random(seed), np.random.default_rng(seed), trials
        self.noise = self.dice.choice([0.002, 0.05, 0.5])
        self.hard = self.rng.gamma(2.0, 0.5, ROWS)
        self.curves: list[TrialCurve] = []
        self.ends: dict[str, float] = {}
        self.wave = 0

    @property
    def coming(self) -> int:
        return self.trials - len(self.curves)

    def ask(self) -> None:
        number, yardstick = len(self.curves), len(self.curves) in (0, 3)
        params: dict[str, Any] = {
            "training.learning_rate": 1e-4,
            "adapter.r": self.dice.choice([8, 16]),
            "adapter.lora_alpha": 16,
        }
        if self.dice.random() < 0.7:
            params["training.learning_rate"] *= 1 + number
        kind = "default" if yardstick else "audit" if self.dice.random() < 0.2 else "sampled"
        curve = TrialCurve(
            AskedTrial(f"t{number:03d}", params, kind, int(number == 3), kind == "audit"),
            self.wave,
            yardstick,
        )
        self.curves.append(curve)
        self.ends[curve.id] = self.dice.choice([1.0, 1.0, 1.1, 1.5]) + float(self.rng.normal(0.0, 0.02))

    def report(self, curve: TrialCurve) -> None:
        planned, evaluations = 40 * (1 + int(curve.id[1:]) % 3), 8
        place = 1 + (0 if curve.last is None else round(curve.last.progress * evaluations))
        if self.dice.random() < 0.03:
            place = self.dice.randrange(1, place + 1)
        if place > evaluations:
            curve.status, curve.cost = "completed", curve.readings[-1].cost
            return
        end, progress = self.ends[curve.id], place / evaluations
        rows = end + (3 - end) * (1 - progress) ** 2 + self.hard + self.rng.normal(0.0, self.noise, ROWS)
        cost = math.nan if self.dice.random() < 0.03 else float(rows.mean())
        score = Score(
            "validation", {}, tuple(rows.tolist()) if math.isfinite(cost) else (math.nan,) * ROWS
        )
        shape = SHAPES[int(curve.id[1:]) % len(SHAPES)]
        curve.add(
            Observation(
                curve.id, planned * place // evaluations, progress, 0.06, score, cost, 3.0, shape
            )
        )

    def happen(self) -> None:
        """One thing, or a few before the pruner is asked again."""
        running = [curve for curve in self.curves if curve.living and not curve.paused]
        if self.coming and (not running or self.dice.random() < 0.3):
            self.wave += 1
            for _ in range(self.dice.randrange(1, 1 + min(6, self.coming))):
                self.ask()
        for _ in range(self.dice.choice([1, 1, 1, 3])):
            running = [curve for curve in self.curves if curve.living and not curve.paused]
            if running:
                self.report(self.dice.choice(running))
        if running and self.dice.random() < 0.02:
            self.dice.choice(running).status = self.dice.choice(["failed", "diverged"])

    def heed(self, verdicts: Sequence[Verdict]) -> None:
        """Do what was said; now and then only at the next time."""
        for verdict in verdicts:
            curve = next(curve for curve in self.curves if curve.id == verdict.trial_id)
            if verdict.action == "pause":
                curve.paused = True
            elif self.dice.random() < 0.8:
                curve.status, curve.paused = "pruned", False

    def over(self) -> bool:
        return not self.coming and not any(curve.living for curve in self.curves)


def against_whom(verdicts: Sequence[Verdict]) -> Decisions:
    """The parts of the reasons that the plain rule has too."""
    found: Decisions = {}
    for verdict in verdicts:
        parts = re.search(r"(above \w+) at the same point .* not closing(: .*)$", verdict.reason)
        found[verdict.trial_id] = "".join(parts.groups()) if parts else verdict.reason
    return found


def in_short(verdicts: Sequence[Verdict]) -> Decisions:
    found: Decisions = {}
    for verdict in verdicts:
        place = re.search(r"had (place \w+ of \d+)", verdict.reason)
        found[verdict.trial_id] = f"prune at {place[1]}" if place else verdict.action
    return found


def test_the_careful_pruner_decides_as_the_plain_rule() -> None:
    told = 0
    for seed in range(40):
        search = Chance(seed, trials=(12, 20, 40)[seed % 3])
        pruner = RungPruner(search.trials)
        while not search.over():
            search.happen()
            found, plain = (
                pruner.verdicts(search.curves, search.coming),
                careful(search.trials, search.curves),
            )
            assert list(against_whom(found).items()) == list(plain.items()), seed
            search.heed(found)
            told += len(found)
    assert told > 40, "what never prunes shows nothing"


def test_the_wide_pruner_decides_as_the_plain_rule() -> None:
    told = let_go = 0
    for seed in range(40):
        search = Chance(seed, trials=(12, 20, 40)[seed % 3])
        pruner = HalvingPruner(search.trials, SEED)
        while not search.over():
            search.happen()
            found = pruner.verdicts(search.curves, search.coming)
            assert in_short(found) == wide(search.trials, SEED, search.curves, search.coming)[0], seed
            search.heed(found)
            free = pruner.released(search.curves, search.coming)
            assert free == wide(search.trials, SEED, search.curves, search.coming)[1], seed
            for curve in search.curves:
                curve.paused = curve.paused and curve.id not in free
            told, let_go = told + len(found), let_go + len(free)
    assert min(told, let_go) > 40, "what never prunes shows nothing"
