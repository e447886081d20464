"""What measurement says about a forecast: a probe of this very run, or runs that came before.

A forecast errs by about the same share for runs that are alike: the same model, lengths and batches that
differ little. So what was measured over what was forecast is a factor for the next forecast, and the
spread of several such factors says how far to trust it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from loraloom.records import Estimate

ALIKE = 2.0
"""Runs count as alike whose forecasts differ by no more than this factor."""
PROBED = 0.12
"""Share by which a forecast may still be off once its longest batch was run: in benchmarks/advice_memory
the same run of T5 takes up to so much more in one process than in the next, by where malloc happens to
leave holes."""
LEAST_SPREAD = 0.03
"""A forecast that stands on runs of other days is not trusted further than this."""
FIXED = frozenset({"runtime", "overhead", "startup"})
"""Parts that do not grow with a run, and that no factor touches."""


@dataclass(frozen=True)
class Measurement:
    """One run that is over: what was forecast for it and what it took, in the same unit
    (bytes or seconds)."""

    run: str
    forecast: float
    measured: float

    @property
    def factor(self) -> float:
        return self.measured / self.forecast


@dataclass(frozen=True)
class Corrected:
    """A forecast after measurement, and one sentence about it."""

    estimate: Estimate
    note: str


def by_probe(forecast: Estimate, measured: float) -> Corrected:
    """What a probe of this run measured, in place of the forecast; parts keep their shares.

    Raises:
        ValueError: nothing was measured.
    """
    if measured <= 0:
        raise ValueError(f"a probe measures a positive amount, got {measured}")
    estimate = scaled(forecast, measured / forecast.value, PROBED)
    return Corrected(
        estimate,
        f"measured by a probe of the longest batch: {measured / forecast.value:.0%} of the forecast",
    )


def by_history(forecast: Estimate, earlier: Sequence[Measurement]) -> Corrected:
    """Scale by the median factor of earlier runs that were alike; as it was where there are none."""
    alike = [
        one
        for one in earlier
        if one.forecast > 0 and one.measured > 0 and _alike(one.forecast, forecast.value)
    ]
    if not alike:
        return Corrected(forecast, "")
    factor = median(one.factor for one in alike)
    spread = max([LEAST_SPREAD, *(abs(math.log(one.factor / factor)) for one in alike)])
    names = ", ".join(one.run for one in alike[:3]) + (
        f" and {len(alike) - 3} more" if len(alike) > 3 else ""
    )
    note = (
        f"corrected by {len(alike)} earlier {'run' if len(alike) == 1 else 'runs'} ({names}):"
        f" {factor:.0%} of the forecast"
    )
    return Corrected(scaled(forecast, factor, min(spread, _spread(forecast))), note)


def scaled(forecast: Estimate, factor: float, spread: float) -> Estimate:
    """`forecast` times `factor`, with what does not grow left alone, and a range of
    `spread` on either side."""
    fixed = sum(size for name, size in forecast.parts.items() if name in FIXED)
    value = forecast.value * factor
    moving = forecast.value - fixed
    if moving <= 0 or value <= fixed:
        parts = {name: size * factor for name, size in forecast.parts.items()}
    else:
        own = (value - fixed) / moving
        parts = {name: size if name in FIXED else size * own for name, size in forecast.parts.items()}
    return Estimate(value, value * (1 - spread), value * (1 + spread), forecast.unit, parts)


def _alike(one: float, other: float) -> bool:
    return 1 / ALIKE <= one / other <= ALIKE


def _spread(forecast: Estimate) -> float:
    """How far a forecast that knows nothing of earlier runs may be off, upwards."""
    return max(LEAST_SPREAD, forecast.high / forecast.value - 1) if forecast.value > 0 else LEAST_SPREAD


__all__ = ["Corrected", "Measurement", "by_history", "by_probe", "scaled"]
