"""The axes of a search space: what the sampler turns (a plain number) and what the
candidate gets (a setting).

Samplers compare numbers, so ranks and batch sizes are their base-2 logarithms and ordered choices their
places in the list: a step is then about as large everywhere, and a Gaussian process can be fitted.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial

Coordinate: TypeAlias = int | float | str
"""A dimension's value as the sampler knows it."""


@dataclass(frozen=True)
class Choices:
    """One of a list of settings.

    `ordered` choices become whole numbers that begin at `offset` (the base-2 logarithm of the first
    choice where each choice doubles the one before); choices without an order stay apart as labels.
    """

    key: str
    values: tuple[Any, ...]
    ordered: bool = True
    offset: int = 0

    @property
    def frozen(self) -> bool:
        return len(self.values) == 1

    @property
    def size(self) -> float:
        return len(self.values)

    @property
    def distribution(self) -> BaseDistribution:
        from optuna.distributions import CategoricalDistribution, IntDistribution

        if self.ordered:
            return IntDistribution(self.offset, self.offset + len(self.values) - 1)
        return CategoricalDistribution(self._labels)

    def suggest(self, trial: Trial) -> Coordinate:
        if self.ordered:
            return trial.suggest_int(self.key, self.offset, self.offset + len(self.values) - 1)
        return trial.suggest_categorical(self.key, self._labels)

    def setting(self, coordinate: Coordinate) -> Any:
        """The candidate's value at a coordinate."""
        if self.ordered:
            return self.values[int(coordinate) - self.offset]
        return self.values[self._labels.index(str(coordinate))]

    def coordinate(self, setting: Any) -> Coordinate:
        """Where a setting lies: its own place, else that of the nearest number, else the first."""
        place = self._place(setting)
        return self.offset + place if self.ordered else self._labels[place]

    def clip(self, setting: Any) -> Any:
        return self.values[self._place(setting)]

    def at(self, share: float) -> Coordinate:
        """The coordinate at a share of the way from the first choice to the last."""
        return self.coordinate(self.values[min(int(share * len(self.values)), len(self.values) - 1)])

    def share(self, coordinate: Coordinate) -> float:
        """How far a coordinate lies on the way from the first choice (0) to the last (1)."""
        return self.values.index(self.setting(coordinate)) / max(1, len(self.values) - 1)

    def levels(self, count: int) -> tuple[Coordinate, ...]:
        """Every coordinate: a list of choices is never thinned out."""
        return tuple(self.coordinate(value) for value in self.values)

    @property
    def _labels(self) -> list[str]:
        """The choices as Optuna knows them: their JSON text."""
        return [json.dumps(value) for value in self.values]

    def _place(self, setting: Any) -> int:
        if setting in self.values:
            return self.values.index(setting)
        if not (is_number(setting) and all(is_number(value) for value in self.values)):
            return 0
        return min(
            range(len(self.values)),
            key=lambda place: _distance(float(self.values[place]), float(setting)),
        )


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; whole ones where `integer` says so."""

    key: str
    low: float
    high: float
    log: bool = False
    step: float | None = None
    integer: bool = False

    @property
    def frozen(self) -> bool:
        return self.low == self.high

    @property
    def size(self) -> float:
        """How many coordinates there are: infinite where nothing cuts the range into steps."""
        step = self.step or (1 if self.integer else None)
        return round((self.high - self.low) / step) + 1 if step else math.inf

    @property
    def distribution(self) -> BaseDistribution:
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.integer:
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def suggest(self, trial: Trial) -> Coordinate:
        if self.integer:
            return trial.suggest_int(
                self.key, int(self.low), int(self.high), log=self.log, step=int(self.step or 1)
            )
        return trial.suggest_float(self.key, self.low, self.high, log=self.log, step=self.step)

    def setting(self, coordinate: Coordinate) -> Any:
        """The coordinate itself, to four significant digits (what a person reads is what is trained)."""
        return self.clip(int(coordinate) if self.integer else float(f"{float(coordinate):.4g}"))

    def coordinate(self, setting: Any) -> Coordinate:
        """The nearest coordinate that the range has; its middle for what is no number."""
        return self.clip(setting) if is_number(setting) else self.at(0.5)

    def clip(self, setting: Any) -> Any:
        value = min(max(float(setting), self.low), self.high)
        step = self.step or (1 if self.integer else None)
        if step:
            value = min(self.low + round((value - self.low) / step) * step, self.high)
        return round(value) if self.integer else value

    def at(self, share: float) -> Coordinate:
        """The coordinate at a share of the way from low to high, on the scale that is searched."""
        if self.log:
            return self.clip(math.exp(math.log(self.low) + share * math.log(self.high / self.low)))
        return self.clip(self.low + share * (self.high - self.low))

    def share(self, coordinate: Coordinate) -> float:
        """How far a coordinate lies on the way from low (0) to high (1), on the scale
        that is searched."""
        if self.frozen:
            return 0.0
        if self.log:
            return math.log(float(coordinate) / self.low) / math.log(self.high / self.low)
        return (float(coordinate) - self.low) / (self.high - self.low)

    def levels(self, count: int) -> tuple[Coordinate, ...]:
        """All of its steps where it has any and they are few, else `count` coordinates
        evenly from low to high."""
        step = self.step or (1 if self.integer and not self.log else None)
        if step and (self.high - self.low) / step < max(count, 9):
            count = round((self.high - self.low) / step) + 1
        if count < 2 or self.frozen:
            return (self.at(0.5),)
        return tuple(dict.fromkeys(self.at(place / (count - 1)) for place in range(count)))


Dimension: TypeAlias = Choices | Range


def choices(key: str, values: Sequence[Any], *, ordered: bool | None = None) -> Choices:
    """Choices under a key: numbers in their order, a doubling series by its logarithm, words as labels.

    Args:
        ordered: says whether the list stands in an order that means something; None:
            numbers do, words do not.
    """
    numeric = all(is_number(value) for value in values)
    kept = tuple(sorted(values)) if numeric else tuple(values)
    return Choices(key, kept, ordered=numeric if ordered is None else ordered, offset=_exponent(kept))


def powers_of_two(key: str, low: int, high: int) -> Choices:
    """Every power of two from low to high; both are powers of two."""
    return choices(key, [2**exponent for exponent in range(low.bit_length() - 1, high.bit_length())])


def is_power_of_two(value: Any) -> bool:
    return (
        isinstance(value, int) and not isinstance(value, bool) and value > 0 and value & (value - 1) == 0
    )


def is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _distance(a: float, b: float) -> tuple[float, float]:
    """How far two numbers are apart: by their ratio where both are positive (a rate of 3e-4 is nearer to
    4e-4 than to 2e-4), which comes before any distance to a number that is not."""
    return (0.0, abs(math.log(a / b))) if a > 0 and b > 0 else (1.0 if a != b else 0.0, abs(a - b))


def _exponent(values: tuple[Any, ...]) -> int:
    """The base-2 logarithm of the first value where each value doubles the one before, else 0."""
    doubling = all(is_power_of_two(value) for value in values) and all(
        b == 2 * a for a, b in pairwise(values)
    )
    return values[0].bit_length() - 1 if doubling else 0
