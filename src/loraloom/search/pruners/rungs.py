"""Our own pruning: at rungs of each trial's own progress, what is surely worse or has
no place left, and is not catching up.

A trial is pruned at a rung if every one of these holds:

- it has trained long enough (`_stand`): past warm-up and a tenth more, 10 steps, 3
  evaluations after warm-up;
- 6 comparable trials have come as far, or all that live and at least 4;
- it is surely worse, or has no place left;
- it is not the plan's setting, the leader, or an audit.

Surely worse: it is in the bottom third (up to 16 trials) or half (beyond) of those that have come or may
still come as far, and against a better one the gap is more than 2 paired standard errors, 2 sqrt(2)
standard deviations of a seed (where the plan's setting ran twice) and 0.5% of the loss, and at the
present slopes still open at the end.

No place left: of those that have come or may still come as far, a third is kept at a quarter of the
steps, a sixth at half, a twelfth at three quarters, and never fewer than race in the end. A trial that
lies behind the last of them by half of the above may still be as good, but is not likely to be the one
that is kept (measured: benchmarks/search).

Every count looks at values at the trial's own progress, never at the latest ones, and a late arrival can
only add reasons to prune: so the order in which trials report does not matter. Source of the procedure:
successive halving (arXiv 1810.05934) with the margins that noisy losses need.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from loraloom.search.compare import Floats, paired_difference
from loraloom.search.curves import NEAR, Reading, TrialCurve, leader
from loraloom.search.finals import finalists_of
from loraloom.search.pruners.heat import Heat, Stand
from loraloom.search.pruners.pruner import EXITS_ONLY, NeverPauses, NoPruner, Pruner, PrunerInputs
from loraloom.search.pruners.watch import Watch
from loraloom.search.values import Verdict

RUNGS = (0.25, 0.5, 0.75)
KEPT_OF = {0.25: 3, 0.5: 6, 0.75: 12}
"""At each rung, one of so many keeps its place."""
AFTER_WARMUP = 0.10
MIN_STEPS = 10
MIN_EVALUATIONS, FEW_EVALUATIONS, MANY_PLANNED = 3, 2, 12
"""With fewer than 12 evaluations in a run, 3 would lie beyond the first rung: then 2 do."""
QUORUM, SMALL_QUORUM = 6, 4
THIRD_UP_TO = 16
SURE, LIKELY = 2.0, 1.0
"""Standard errors."""
PRACTICAL = 0.005
RANK_CORRELATION = 0.7
MIN_AUDITS = 5


class RungPruner(NeverPauses):
    """Prunes at a quarter, half and three quarters of each trial's own steps.

    What a trial is held against is kept in its heat from one report to the next, and
    judged again where it has changed.

    Args:
        trials: how many candidates the whole search has.
    """

    def __init__(self, trials: int) -> None:
        self.trials = trials
        self._watch = Watch()
        self._numbers: dict[str, int] = {}
        self._heats: dict[str, Heat] = {}

    def verdicts(self, curves: Sequence[TrialCurve], coming: int = 0) -> list[Verdict]:
        """The trials to prune, given all that has been seen so far."""
        if self.trials <= EXITS_ONLY:
            return []
        self._follow(curves)
        found = [heat for heat in self._heats.values() if heat.verdict]
        if not found:
            return []
        first, off = leader(curves), [rung for rung in RUNGS if is_off(rung, curves)]
        told = [heat for heat in found if heat.curve is not first and heat.stand.rung not in off]
        told.sort(key=lambda heat: self._numbers[heat.curve.id])
        return [heat.verdict for heat in told if heat.verdict]

    def _follow(self, curves: Sequence[TrialCurve]) -> None:
        """Bring the heats up to date."""
        changed = self._watch.changed(curves)
        for curve in changed:
            self._numbers.setdefault(curve.id, len(self._numbers))
        for curve in changed:
            self._enter(curve, curves)
        yardsticks = [curve for curve in curves if curve.protected]
        moved = any(curve.protected for curve in changed)
        for heat in self._heats.values():
            for peer in changed:
                heat.note(peer, self._numbers[peer.id])
            if moved:
                heat.forget()
            if heat.stale:
                heat.verdict, heat.stale = self._judge(heat, yardsticks), False

    def _enter(self, curve: TrialCurve, curves: Sequence[TrialCurve]) -> None:
        """A trial that has come to another stand has a new heat there; one that is not
        to be judged has none."""
        stand = last_stand(curve)
        if stand is None or not curve.unfinished or curve.protected or curve.asked.audit:
            self._heats.pop(curve.id, None)
        elif curve.id not in self._heats or self._heats[curve.id].stand != stand:
            self._heats[curve.id] = Heat(curve, stand)
            for peer in curves:
                self._heats[curve.id].note(peer, self._numbers[peer.id])

    def _judge(self, heat: Heat, yardsticks: Sequence[TrialCurve]) -> Verdict | None:
        curve, stand, better = heat.curve, heat.stand, [peer for _, _, peer in heat.better]
        if _waits_for_yardstick(curve, stand.progress, yardsticks):
            return None
        if len(heat.arrived) + 1 < (QUORUM if heat.coming else SMALL_QUORUM):
            return None
        field = len(heat.arrived) + len(heat.coming) + 1
        spread, standing = (
            _seed_spread(yardsticks, stand.progress),
            f"{len(better)} of {field} comparable trials were better",
        )

        def is_ahead(peer: TrialCurve, errors: float) -> bool:
            return heat.once(peer, errors, lambda: _better(peer, curve, stand.progress, spread, errors))

        last = self._last_kept(better, field, stand.rung)
        if last and is_ahead(last, LIKELY):
            return _verdict(curve, last, stand, f"no place is left; {standing}")
        if len(better) < field - self._cut(field):
            return None
        ahead = next((peer for peer in better if is_ahead(peer, SURE)), None)
        return ahead and _verdict(curve, ahead, stand, f"more than noise; {standing}")

    def _last_kept(self, better: Sequence[TrialCurve], field: int, rung: float) -> TrialCurve | None:
        """The last of the better ones that keeps its place; None while there are places left."""
        places = max(finalists_of(self.trials), math.ceil(field / KEPT_OF[rung]))
        return better[places - 1] if len(better) >= places else None

    def _cut(self, field: int) -> int:
        """How many of a field may be surely worse at one rung."""
        return field // 3 if self.trials <= THIRD_UP_TO else field // 2


def careful(inputs: PrunerInputs) -> Pruner:
    """Pruning at rungs, where there is enough to compare with."""
    return RungPruner(inputs.trials) if inputs.trials > EXITS_ONLY else NoPruner()


def last_stand(curve: TrialCurve) -> Stand | None:
    """The last rung that a trial may be judged at, with the reading it is judged by."""
    stands = [stand for rung in RUNGS if (stand := _stand(curve, rung))]
    return stands[-1] if stands else None


def _stand(curve: TrialCurve, rung: float) -> Stand | None:
    warm = 0
    for count, reading in enumerate(curve.finite, start=1):
        warm += reading.after_warmup
        far_enough = reading.progress >= max(rung, reading.warmup_share + AFTER_WARMUP) - NEAR
        if far_enough and reading.step >= MIN_STEPS and warm >= _min_evaluations(reading, count):
            return Stand(rung, reading)
    return None


def _min_evaluations(reading: Reading, count: int) -> int:
    """How many are needed of a trial that had `count` of them when it came to this reading."""
    return MIN_EVALUATIONS if count / reading.progress >= MANY_PLANNED - NEAR else FEW_EVALUATIONS


def _waits_for_yardstick(curve: TrialCurve, progress: float, yardsticks: Sequence[TrialCurve]) -> bool:
    """The plan's two runs say how much a seed changes; while both are on their way
    there, nothing is judged."""
    return any(
        twin.living and twin.wave <= curve.wave and not twin.reached(progress) for twin in yardsticks
    )


def _seed_spread(yardsticks: Sequence[TrialCurve], progress: float) -> float:
    """Standard deviation between seeds at a progress, from the plan's two runs; 0 until
    both have come that far."""
    levels = [twin.level(progress) for twin in yardsticks if twin.reached(progress)]
    return float(np.std(levels, ddof=1)) if len(levels) > 1 else 0.0


def _better(
    peer: TrialCurve, curve: TrialCurve, progress: float, seed_spread: float, errors: float
) -> bool:
    """Whether a trial lies behind another by so many standard errors (of paired rows, of two seeds) at a
    progress, by what matters at all, and by the slopes there at its end too."""
    gap = curve.level(progress) - peer.level(progress)
    paired = paired_difference(curve.until(progress)[-1].score, peer.until(progress)[-1].score)
    margin = max(
        errors * paired.se, errors * math.sqrt(2.0) * seed_spread, PRACTICAL * abs(peer.level(progress))
    )
    closing = (curve.slope(progress) - peer.slope(progress)) * (1.0 - progress)
    return gap > margin and gap + closing > 0.0


def _verdict(curve: TrialCurve, ahead: TrialCurve, stand: Stand, why: str) -> Verdict:
    level, best = curve.level(stand.progress), ahead.level(stand.progress)
    reason = (
        f"at {stand.progress:.0%} of its steps its validation cost was {level:.4g}, {level - best:.2g}"
        f" above {ahead.id} at the same point ({best:.4g}), and not closing: {why}"
    )
    return Verdict(curve.id, "prune", reason, stand.reading.step)


def is_off(rung: float, curves: Sequence[TrialCurve]) -> bool:
    """Whether a rung misleads: over the trials that run to their end whatever happens (audits, the
    plan's setting), the order at the rung and the final order correlate (Spearman) by less than 0.7.
    Asked once 5 of them have ended.
    """
    ended = [
        curve
        for curve in curves
        if (curve.asked.audit or curve.protected)
        and curve.cost is not None
        and curve.reached(rung)
        and not curve.living
    ]
    pairs = [(curve.level(rung), curve.cost) for curve in ended if curve.cost is not None]
    return len(pairs) >= MIN_AUDITS and spearman(pairs) < RANK_CORRELATION


def spearman(pairs: Sequence[tuple[float, float]]) -> float:
    """Rank correlation of pairs of numbers, ties at their mean rank; 1 where either side is constant."""
    a, b = (_ranks(side) for side in zip(*pairs, strict=True))
    a, b = a - a.mean(), b - b.mean()
    spread = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / spread if spread else 1.0


def _ranks(values: Sequence[float]) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    below, equal = (
        (array[None, :] < array[:, None]).sum(axis=1),
        (array[None, :] == array[:, None]).sum(axis=1),
    )
    return below + (equal - 1) / 2
