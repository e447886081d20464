"""A search played through on simulated learning curves: no model, no training, known truth.

A candidate's cost falls from a common start to an end that its settings and a draw decide; each row of
the validation split is hard or easy for all candidates alike; each candidate's rows carry noise of their
own, and so does each evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from loraloom.records import Score
from loraloom.search.searcher import AskedTrial, Observation, Searcher, Verdict

ROWS = 100
EVALUATIONS = 8
PLANNED_STEPS = 400
START = 2.0

Truth = Callable[[Mapping[str, Any]], float]
"""Where a candidate's cost ends, but for its seed."""


@dataclass
class Played:
    """What came out: every candidate's true end, who was pruned, and how much of the
    full work was done."""

    asked: list[AskedTrial] = field(default_factory=list[AskedTrial])
    ends: dict[str, float] = field(default_factory=dict[str, float])
    gone: list[Verdict] = field(default_factory=list[Verdict])
    evaluations: int = 0

    @property
    def best(self) -> str:
        return min(self.ends, key=lambda name: self.ends[name])

    @property
    def saved(self) -> float:
        return 1 - self.evaluations / (EVALUATIONS * len(self.asked))


@dataclass
class Rehearsal:
    """Fills the pack_size, reports round by round in a drawn order, and does what the verdicts say."""

    searcher: Searcher
    truth: Truth
    pack_size: int
    seed: int = 0
    noise: float = 0.004
    seed_noise: float = 0.004

    def play(self, rounds: int | None = None) -> Played:
        """To the end, or so many rounds of evaluations."""
        rng = np.random.default_rng(self.seed)
        hard = rng.gamma(2.0, 0.5, ROWS)
        played, places = Played(), dict[str, int]()
        self.waiting: dict[str, int] = {}
        while rounds is None or rounds > 0:
            self._fill(played, places, rng)
            if self.waiting and not places:
                self._heed(played, places, None)
                self._fill(played, places, rng)
            if not places:
                break
            for name in rng.permutation(sorted(places)):
                if name in places:
                    self._evaluate(str(name), played, places, hard - hard.mean(), rng)
            rounds = None if rounds is None else rounds - 1
        return played

    def _fill(self, played: Played, places: dict[str, int], rng: np.random.Generator) -> None:
        while len(places) < self.pack_size:
            asked = self.searcher.ask()
            if asked is None:
                return
            if asked.id in self.waiting:
                places[asked.id] = self.waiting.pop(asked.id)
                continue
            played.asked.append(asked)
            played.ends[asked.id] = self.truth(asked.params) + rng.normal(0.0, self.seed_noise)
            places[asked.id] = 0

    def _evaluate(
        self,
        name: str,
        played: Played,
        places: dict[str, int],
        hard: np.ndarray,
        rng: np.random.Generator,
    ) -> None:
        places[name] += 1
        played.evaluations += 1
        score = self._score(played.ends[name], places[name] / EVALUATIONS, hard, rng)
        cost = float(np.mean(score.costs))
        progress = places[name] / EVALUATIONS
        self.searcher.report(
            Observation(
                name, round(PLANNED_STEPS * progress), progress, 0.06, score, cost, START, "linear"
            )
        )
        self._heed(played, places, score)
        if places.get(name) == EVALUATIONS:
            self.searcher.tell(name, "completed", score)
            del places[name]

    def _heed(self, played: Played, places: dict[str, int], score: Score | None) -> None:
        """Do what the verdicts say."""
        for verdict in self.searcher.verdicts():
            name = verdict.trial_id
            if verdict.action == "pause":
                self.waiting[name] = places.pop(name)
                continue
            ended = {"prune": "pruned", "diverged": "diverged", "stop": "completed"}[verdict.action]
            self.searcher.tell(name, ended, score if ended == "completed" else None)  # type: ignore[arg-type]
            played.gone.append(verdict)
            (places if name in places else self.waiting).pop(name)

    def _score(self, end: float, progress: float, hard: np.ndarray, rng: np.random.Generator) -> Score:
        level = end + (START - end) * (1 - progress) ** 2 * 0.6
        rows = level + hard + rng.normal(0.0, 0.1, len(hard)) + rng.normal(0.0, self.noise)
        return Score("validation", {"loss": float(rows.mean())}, tuple(float(row) for row in rows))
