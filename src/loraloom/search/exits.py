"""When a trial ends by itself, whatever the others do: it is broken, or its best is behind it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from loraloom.search.compare import paired_difference, standard_error
from loraloom.search.curves import Reading, TrialCurve
from loraloom.search.values import Verdict

NON_FINITE = 2
"""Observations that are not finite: one may be a single bad batch, which the engine skips."""
WARMUP_BLOWUP = 3.0
BLOWUP = 1.5
BLOWUP_CHECKS = 3
BLOWUP_SHARE = 0.1
"""A train loss near 0 doubles for nothing: the rise must also be a tenth of the first loss."""
WORSE_THAN_BASE_FROM = 0.25
WORSE_THAN_BASE_CHECKS = 2
OVERFIT_FROM = 0.5
OVERFIT_CHECKS = 3
ERRORS = 2.0
_TASK_METRICS = ("accuracy", "token_accuracy", "reward_accuracy")


def leave(curve: TrialCurve, base_cost: float | None) -> Verdict | None:
    """The reason for a living trial to end now, if there is one.

    - diverged: two observations are not finite; in warm-up the train loss is above 3 times its first
      value; later it is above 1.5 times its best (and a tenth of the first value above it) on 3 checks
      in a row; from a quarter of the steps on, validation is worse than the bare base by more than 2
      standard errors on 2 checks in a row (not asked of the plan's own setting: the yardstick is
      measured to its end).
    - stop: past half of the steps, 3 evaluations without a gain, the last more than 2 standard errors
      above the best, and the task's metric (accuracy) at no new best either.

    Args:
        base_cost: mean validation cost of the bare base; None where it is not known.
    """
    if curve.last is None:
        return None
    broken = _not_finite(curve) or _blown_up(curve) or _worse_than_base(curve, base_cost)
    if broken:
        return Verdict(curve.id, "diverged", broken, curve.last.step)
    behind = _overfit(curve)
    return Verdict(curve.id, "stop", behind, curve.last.step) if behind else None


def _not_finite(curve: TrialCurve) -> str | None:
    count = sum(not (reading.finite and math.isfinite(reading.train_loss)) for reading in curve.readings)
    return (
        f"{count} of its {len(curve.readings)} evaluations were not finite"
        if count >= NON_FINITE
        else None
    )


def _blown_up(curve: TrialCurve) -> str | None:
    """By the train loss: against its beginning in warm-up, against its best afterwards."""
    last = curve.readings[-1]
    if not last.after_warmup:
        first = last.initial_train_loss
        if first <= 0 or last.train_loss <= WARMUP_BLOWUP * first:
            return None
        return (
            f"train loss {last.train_loss:.4g} in warm-up, above {WARMUP_BLOWUP:g} times the first"
            f" ({first:.4g})"
        )
    losses = [reading.train_loss for reading in curve.readings if math.isfinite(reading.train_loss)]
    recent = losses[-BLOWUP_CHECKS:]
    best = min(losses, default=math.inf)
    if len(losses) <= BLOWUP_CHECKS or min(recent) <= max(
        BLOWUP * best, best + BLOWUP_SHARE * last.initial_train_loss
    ):
        return None
    return (
        f"train loss {recent[-1]:.4g}, above {BLOWUP:g} times its best ({best:.4g}) on {BLOWUP_CHECKS}"
        " checks in a row"
    )


def _worse_than_base(curve: TrialCurve, base_cost: float | None) -> str | None:
    recent = curve.finite[-WORSE_THAN_BASE_CHECKS:]
    if base_cost is None or curve.protected or len(recent) < WORSE_THAN_BASE_CHECKS:
        return None
    if any(
        reading.progress < WORSE_THAN_BASE_FROM or _surely_at_least(reading) <= base_cost
        for reading in recent
    ):
        return None
    return (
        f"validation cost {recent[-1].cost:.4g}, worse than before training ({base_cost:.4g}) on"
        f" {len(recent)} checks in a row"
    )


def _surely_at_least(reading: Reading) -> float:
    """The cost less its noise: a candidate about as good as the base has not diverged."""
    return reading.cost - ERRORS * standard_error(reading.score)


def _overfit(curve: TrialCurve) -> str | None:
    earlier = curve.finite[:-OVERFIT_CHECKS]
    recent = curve.finite[-OVERFIT_CHECKS:]
    if not earlier or not OVERFIT_FROM <= recent[-1].progress < 1:
        return None
    best = min(earlier, key=lambda reading: reading.cost)
    if min(reading.cost for reading in recent) < best.cost or _metric_gained(earlier, recent):
        return None
    rise = paired_difference(recent[-1].score, best.score)
    if rise.mean <= ERRORS * rise.se:
        return None
    return (
        f"validation cost {recent[-1].cost:.4g} is {rise.mean:.4g} +- {rise.se:.2g} above its best"
        f" ({best.cost:.4g} at step {best.step}), with no gain in {OVERFIT_CHECKS} evaluations; the best"
        " checkpoint is kept"
    )


def _metric_gained(earlier: Sequence[Reading], recent: Sequence[Reading]) -> bool:
    """Whether the task's metric found a new best although the loss did not: then training goes on."""
    name = next((name for name in _TASK_METRICS if name in recent[-1].score.metrics), None)
    if name is None:
        return False
    return max(r.score.metrics.get(name, -math.inf) for r in recent) > max(
        r.score.metrics.get(name, -math.inf) for r in earlier
    )
