"""The search as the pipeline sees it: ask for candidates, report what they do, hear
which have to go, tell how they ended.

The study lives in memory: a new Searcher that gets the same calls comes to the same place. Costs (the
mean of `Score.costs`) are what is compared throughout, and less is better.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import optuna
from optuna.samplers import RandomSampler
from optuna.trial import TrialState

from loraloom.records import EndStatus, Score
from loraloom.search.anchors import Anchor, anchors
from loraloom.search.compare import mean_cost
from loraloom.search.curves import TrialCurve, compact, leader
from loraloom.search.exits import leave
from loraloom.search.history import Known
from loraloom.search.optuna_guard import quiet
from loraloom.search.past import Early, Past
from loraloom.search.pruners import is_wide, make_pruner
from loraloom.search.pruners.halving import FIRST, cost_at, mark
from loraloom.search.pruners.pruner import EXITS_ONLY, PrunerInputs
from loraloom.search.samplers import Listed, SamplerInputs, make_sampler
from loraloom.search.space import Params, Point, Space
from loraloom.search.told import Teacher
from loraloom.search.values import AskedTrial, Kind, Observation, Verdict

__all__ = ["AskedTrial", "Observation", "Searcher", "Verdict"]


AUDIT_EVERY = 8
"""One sampled trial of eight, at a drawn place among them, is an audit: 12.5%."""
DRAWS = 2
REDRAWS = 20
"""A sampler that repeats itself is asked once more; after that chance decides, so often
before the grid is walked."""
PERCENT = 100
"""Optuna's steps: its pruners compare trials at equal ones."""
STUDY = "search"
"""Hyperband draws a trial's bracket from the study's name and the trial's number: the
name must stay the same."""


class Searcher:
    """Ask and tell over one study.

    Args:
        space: what is searched.
        baseline: the plan's setting by dotted key: it becomes t000 as it is, inside the space or not.
        trials: how many candidates are handed out in all.
        pack_size: how many train at a time.
        sampler: auto | tpe | gp | random | sobol | grid | one_factor.
        pruner: auto | careful | asha | hyperband | median | none.
        seed: of every draw.
        minimize: False where `Score.costs` are gains.
        base: the bare base's score on the same rows, if known: the worst that a diverged trial can count
            for, and the bar that a trial has to stay under.
        known: trials of earlier searches on the same base, the latest search first.
            Only the automatic sampler heeds them.

    Raises:
        ConfigError: no such sampler or pruner.
    """

    def __init__(
        self,
        space: Space,
        baseline: Mapping[str, Any],
        trials: int,
        pack_size: int,
        sampler: str = "auto",
        pruner: str = "auto",
        seed: int = 42,
        minimize: bool = True,
        base: Score | None = None,
        known: Sequence[Known] = (),
    ) -> None:
        self._space = space.tied_to(baseline)
        self._trials, self._seed, self._minimize = trials, seed, minimize
        self._wide = is_wide(pruner, trials)
        self._anchors = anchors(self._space, baseline, trials, known, twin=not self._wide)
        self._anchored = sampler == "auto"
        self._audits = pruner == "careful" and trials > EXITS_ONLY
        self._base_cost = None if base is None else mean_cost(self._signed(base))
        with quiet():
            self._study = optuna.create_study(study_name=STUDY, direction="minimize")
        self._sampler = make_sampler(
            sampler, SamplerInputs(self._space, baseline, trials, pack_size, seed, self._wide)
        )
        self._teacher = Teacher(self._base_cost, self._sampler.censored)
        self._random = RandomSampler(seed=seed)
        self._running: dict[str, optuna.Trial] = {}
        self._pruner = make_pruner(pruner, PrunerInputs(trials, seed, self._study, self._running))
        # All that were handed out, in their order: the curve of each, and its point in the space.
        self._curves: dict[str, TrialCurve] = {}
        self._points: dict[str, Point] = {}
        # Those that were made by hand stand beside the search: no sampler or pruner knows of them.
        self._by_hand: dict[str, TrialCurve] = {}
        self._used: set[str] = set()
        self._used_up = False
        # What has happened since: reports since the last verdicts and since the last wave, verdicts that
        # are not obeyed yet, ends that a model can learn from.
        self._fresh: dict[str, TrialCurve] = {}
        self._reported, self._wave = False, 0
        self._leaving: set[str] = set()
        self._learned = 0
        # The paused ones that may go on, until something changes; the last score, whose
        # weights most others share.
        self._free: list[str] | None = None
        self._seen: Score | None = None

    # Asking

    @property
    def ready(self) -> bool:
        """Whether `ask` has something to hand out now; later, when more was reported, it may."""
        if self._released():
            return True
        return self._coming > 0 and (
            self._next_anchor() is not None or not self._sampler.waits(self._past())
        )

    def ask(self) -> AskedTrial | None:
        """The next candidate; None when there is none now, or none any more: all were
        handed out, or the space holds no other.

        Paused candidates that may go on come first.
        """
        if not self.ready:
            return None
        released, self._free = self._released(), None
        if released:
            self._curves[released[0]].paused = False
            return self._curves[released[0]].asked
        if self._reported:
            self._wave, self._reported = self._wave + 1, False
        with quiet():
            asked = self._ask_new()
        self._used_up = asked is None
        return asked

    def repeat(self, known: AskedTrial) -> bool:
        """Hand out what was handed out at this point of an earlier process that got the same calls.

        Returns:
            Whether the same was drawn. Another release of Optuna may draw otherwise:
                what was drawn is then put aside, and
            `known` handed out in its place.
        """
        before = len(self._curves)
        drawn, asked = self.ask(), _fingerprint(known.params, known.seed_offset)
        if drawn is not None and (drawn.id, _fingerprint(drawn.params, drawn.seed_offset)) == (
            known.id,
            asked,
        ):
            return True
        with quiet():
            if drawn is not None and len(self._curves) > before:
                self._study.tell(self._running.pop(drawn.id), state=TrialState.FAIL)
                del self._curves[drawn.id]
                self._used.discard(_fingerprint(drawn.params, drawn.seed_offset))
            kind: Kind = "sampled" if known.kind == "audit" else known.kind
            self._enqueue(self._space.point(known.params), dict(known.params), kind, known.seed_offset)
        return False

    def add(self, params: Params) -> AskedTrial:
        """Hand out a candidate that a user made, beside those of the search. It ends early only where it
        has to by itself (`search.exits`): what it does is no measure for the others."""
        asked = AskedTrial(self._next_id(), dict(params), "hand")
        self._by_hand[asked.id] = TrialCurve(asked, self._wave)
        return asked

    def extend(self, count: int) -> None:
        """Hand out so many candidates more."""
        self._trials += count
        self._used_up, self._free = False, None

    @property
    def used_up(self) -> bool:
        """Whether the space holds no other candidate, although there should be more."""
        return self._used_up

    @property
    def _coming(self) -> int:
        """Candidates that are still to be handed out."""
        return 0 if self._used_up else max(0, self._trials - len(self._curves))

    def _released(self) -> list[str]:
        """Paused candidates that may go on; worked out once after each thing that may change it."""
        if self._free is None:
            waiting = any(curve.paused for curve in self._curves.values())
            self._free = (
                self._pruner.released(list(self._curves.values()), self._coming) if waiting else []
            )
        return self._free

    def _past(self) -> Past:
        return Past(
            len(self._curves),
            self._learned,
            self._is_new,
            lambda: map(self._early, self._curves.values()),
        )

    def _early(self, curve: TrialCurve) -> Early:
        reached = mark(curve, FIRST) is not None
        return Early(
            self._points[curve.id],
            cost_at(curve, FIRST) if reached else math.nan,
            curve.living and not reached,
        )

    def _ask_new(self) -> AskedTrial | None:
        anchor = self._next_anchor()
        if anchor is not None:
            return self._enqueue(
                self._space.point(anchor.params), anchor.params, anchor.kind, anchor.seed_offset
            )
        past = self._past()
        proposal = self._sampler.next(past)
        for draw in range(REDRAWS):
            if proposal is None:
                return None
            if isinstance(proposal, dict):
                return self._enqueue(proposal, self._space.params(proposal), "sampled")
            asked = self._draw(proposal if draw < DRAWS else self._random)
            if asked is not None:
                return asked
        left = Listed(self._space.grid(self._trials)).next(past)
        return (
            self._enqueue(left, self._space.params(left), "sampled") if isinstance(left, dict) else None
        )

    def _draw(self, sampler: optuna.samplers.BaseSampler) -> AskedTrial | None:
        """A point that was not handed out before, or None."""
        self._study.sampler = sampler
        trial = self._study.ask()
        params = self._space.suggest(trial)
        if _fingerprint(params, 0) in self._used:
            self._study.tell(trial, state=TrialState.FAIL)
            return None
        return self._begin(trial, params, "sampled")

    def _enqueue(self, point: Point, params: Params, kind: Kind, seed_offset: int = 0) -> AskedTrial:
        """Hand out a point of our own. Optuna would have a costlier sampler draw for it
        all the same, and in vain."""
        self._study.enqueue_trial(point)
        self._study.sampler = self._random
        trial = self._study.ask()
        self._space.suggest(trial)
        return self._begin(trial, params, kind, seed_offset)

    def _begin(
        self, trial: optuna.Trial, params: Params, kind: Kind, seed_offset: int = 0
    ) -> AskedTrial:
        if kind == "sampled" and self._audits and self._is_audit():
            kind = "audit"
        params = {
            key: tuple(value) if isinstance(value, list) else value for key, value in params.items()
        }
        asked = AskedTrial(self._next_id(), params, kind, seed_offset, kind == "audit")
        protected = _fingerprint(params, 0) == _fingerprint(self._anchors[0].params, 0)
        self._curves[asked.id] = TrialCurve(asked, self._wave, protected)
        self._points[asked.id] = self._space.point(params)
        self._used.add(_fingerprint(params, seed_offset))
        self._running[asked.id] = trial
        return asked

    def _next_id(self) -> str:
        return f"t{len(self._curves) + len(self._by_hand):03d}"

    def _next_anchor(self) -> Anchor | None:
        """The next fixed candidate: all of them in an automatic search, else the plan's
        own setting alone."""
        wanted = self._anchors if self._anchored else self._anchors[:1]
        anchor = next(
            (a for a in wanted if _fingerprint(a.params, a.seed_offset) not in self._used), None
        )
        if (
            anchor
            and anchor.seed_offset
            and self._trials <= EXITS_ONLY
            and not any(c.living for c in self._curves.values())
        ):
            # So few trials, and all known: the second seed is better spent on the one that will be kept.
            best = leader(list(self._curves.values()))
            return Anchor(dict(best.asked.params), anchor.seed_offset) if best else anchor
        return anchor

    def _is_audit(self) -> bool:
        count = sum(curve.asked.kind in ("sampled", "audit") for curve in self._curves.values())
        return count % AUDIT_EVERY == Random(f"{self._seed}:{count // AUDIT_EVERY}").randrange(
            AUDIT_EVERY
        )

    def _is_new(self, point: Point) -> bool:
        return _fingerprint(self._space.params(point), 0) not in self._used

    # Listening

    def report(self, observation: Observation) -> None:
        """Take down one evaluation of a running trial.

        Raises:
            ValueError: the trial is not running here, or its progress is not above 0 and at most 1.
        """
        curve = self._curve(observation.trial_id)
        if not 0 < observation.progress <= 1 or observation.step < 1:
            raise ValueError(
                f"step {observation.step} at progress {observation.progress} is no place in a training"
            )
        self._seen = compact(self._signed(observation.score), like=self._seen)
        curve.add(replace(observation, score=self._seen))
        self._reported, self._free, self._fresh[curve.id] = True, None, curve
        reading = curve.readings[-1]
        if reading.finite and curve.id in self._running:
            with quiet():
                self._running[curve.id].report(reading.cost, round(reading.progress * PERCENT))

    def verdicts(self) -> list[Verdict]:
        """The trials that have to leave the pack, each once; to be called after every report.

        A trial that has to go is told of with `tell`: "pruned" or "diverged", and "completed" with its
        best score where the action was "stop". One whose action is "pause" is kept as it is until `ask`
        hands it out again.
        """
        self._free = None
        # One that was not heard of since the last time has no new reason to end by itself.
        fresh, self._fresh = sorted(self._fresh.values(), key=lambda curve: int(curve.id[1:])), {}
        living = [curve for curve in fresh if curve.living and curve.id not in self._leaving]
        exits = [leave(curve, self._base_cost) for curve in living]
        self._leaving.update(verdict.trial_id for verdict in exits if verdict)
        with quiet():
            pruned = self._pruner.verdicts(list(self._curves.values()), self._coming)
        pruned = [verdict for verdict in pruned if verdict.trial_id not in self._leaving]
        for verdict in pruned:
            self._curves[verdict.trial_id].paused = verdict.action == "pause"
        self._leaving.update(verdict.trial_id for verdict in pruned if verdict.action == "prune")
        return [*(verdict for verdict in exits if verdict), *pruned]

    # Telling

    def tell(self, trial_id: str, status: EndStatus, score: Score | None = None) -> None:
        """How a trial ended, and with which validation score (that of its best checkpoint).

        Optuna is told what its samplers can use: a pruned trial as pruned, or for a Gaussian process as
        complete at the leader's cost plus the gap; a diverged one as complete at the bare base's cost,
        not at a huge number that would flatten the rest.

        Raises:
            ValueError: the trial is not running here, or is completed without a finite score.
        """
        self._free, curve = None, self._curve(trial_id)
        score = None if score is None else self._signed(score)
        cost = math.nan if score is None else mean_cost(score)
        if status == "completed" and not math.isfinite(cost):
            raise ValueError(f"trial {trial_id} cannot be completed with a cost of {cost}")
        if trial := self._running.pop(trial_id, None):
            value, state = self._teacher.told(curve, status, cost, self._curves.values())
            with quiet():
                self._study.tell(trial, value, state)
            self._learned += state != TrialState.FAIL
        curve.status, curve.paused = status, False
        curve.cost = cost if status == "completed" else None
        self._leaving.discard(trial_id)

    # Keeping

    def _curve(self, trial_id: str) -> TrialCurve:
        """That of a running trial."""
        curve = self._curves.get(trial_id) or self._by_hand.get(trial_id)
        if curve is None or not curve.living:
            raise ValueError(f"trial {trial_id} is not running in this search")
        return curve

    def _signed(self, score: Score) -> Score:
        """The score as costs."""
        if self._minimize:
            return score
        return replace(
            score,
            metrics={**score.metrics, "cost": -mean_cost(score)},
            costs=tuple(-cost for cost in score.costs),
        )


def _fingerprint(params: Mapping[str, Any], seed_offset: int) -> str:
    return json.dumps([seed_offset, dict(params)], sort_keys=True, default=str)
