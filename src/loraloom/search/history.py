"""What earlier searches on the same base found: where settings did well, and the one
that is worth another try.

Costs of other data cannot be compared, so each earlier trial counts by its place in its own search.
Between trials the standing to expect is their mean, weighted by nearness (kernel regression: Nadaraya
1964, Watson 1964).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from loraloom.search.dimensions import Dimension, Range, is_number
from loraloom.search.space import Params, Point, Space

NEUTRAL = 0.5
"""The standing to expect where nothing is known: the middle of a search."""
NEUTRAL_WEIGHT = 0.5
"""The neutral standing weighs as much as this many trials at the very place."""
BANDWIDTH = 0.2
"""Of the kernel, in the unit of `_position`."""
OCTAVES = 4
"""Doublings in the unit of `_position`: a default space spans about as many of the
rate, the rank and the batch size."""


@dataclass(frozen=True)
class Known:
    """One trial of an earlier search.

    Attributes:
        params: its settings by dotted key, searched or not.
        standing: its place in its own search, from 0 (the worst) to 1 (the best).
        reason: why it is worth another try, in words that name its run; empty for all
            but a run's winner.
    """

    params: Mapping[str, Any]
    standing: float
    reason: str = ""


@dataclass(frozen=True)
class PastSearch:
    """An earlier run as the next search sees it.

    Attributes:
        trial: the one that it kept.
        params: its setting by dotted key.
        gain: how much better that was than the plan's own setting there, in the unit of
            the metric; 0 where it was the plan's.
        known: all trials that tell something.
    """

    run: str
    trial: str
    params: Mapping[str, Any]
    gain: float
    known: tuple[Known, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """What `plan --json` says of it."""
        return {"run": self.run, "trial": self.trial, "params": dict(self.params), "gain": self.gain}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> PastSearch:
        """What `dataclasses.asdict` made of one, after a way through JSON."""
        known = tuple(
            Known(without_lists(one["params"]), one["standing"], one["reason"]) for one in plain["known"]
        )
        return cls(plain["run"], plain["trial"], without_lists(plain["params"]), plain["gain"], known)


def without_lists(params: Mapping[str, Any]) -> Params:
    """Settings that came out of JSON, as a space has them."""
    return {
        key: tuple(cast("list[Any]", value)) if isinstance(value, list) else value
        for key, value in params.items()
    }


def standings(costs: Sequence[Any]) -> list[float]:
    """Of the others in a search, the share that each is better than; a tie is half of one.

    Args:
        costs: two or more that can be ordered, less being better.
    """
    others = len(costs) - 1
    return [(sum(own < cost for cost in costs) + (costs.count(own) - 1) / 2) / others for own in costs]


class Prior:
    """The standing that a point of a space may be expected to have, from 0 to 1."""

    def __init__(self, space: Space, known: Sequence[Known]) -> None:
        self._space = space
        self._known = [(self._place(space.uncoupled(one.params)), one.standing) for one in known]

    def __call__(self, point: Point) -> float:
        place = self._place({each.key: each.setting(point[each.key]) for each in self._space.searched})
        total = NEUTRAL * NEUTRAL_WEIGHT
        weight = NEUTRAL_WEIGHT
        for other, standing in self._known:
            nearness = math.exp(-_distance(place, other) / (2 * BANDWIDTH**2))
            total = total + nearness * standing
            weight = weight + nearness
        return total / weight

    def _place(self, settings: Mapping[str, Any]) -> list[float | str]:
        return [_position(dimension, settings.get(dimension.key)) for dimension in self._space.searched]


def tried_again(
    space: Space, baseline: Mapping[str, Any], known: Sequence[Known]
) -> tuple[Params, str] | None:
    """Of the earlier winners the one that all earlier trials speak for most, as this
    space has it, and why it is tried.

    What the space does not turn is as in `baseline`. Of two that are equal, the first.
    """
    prior = Prior(space, known)
    winners = [one for one in known if one.reason]
    if not winners:
        return None
    best = max(winners, key=lambda one: prior(space.point({**baseline, **one.params})))
    return space.clip({**baseline, **best.params}), best.reason


def _position(dimension: Dimension, setting: Any) -> float | str:
    """Where a setting lies: numbers above 0 by their logarithm, so that it matters not how far the space
    goes; others by their place in it; words as they are."""
    ends = (dimension.low,) if isinstance(dimension, Range) else dimension.values
    if all(is_number(end) and end > 0 for end in ends):
        number = (
            setting
            if is_number(setting) and setting > 0
            else dimension.setting(dimension.coordinate(setting))
        )
        return math.log2(number) / OCTAVES
    coordinate = dimension.coordinate(setting)
    if isinstance(coordinate, str):
        return coordinate
    levels = (dimension.low, dimension.high) if isinstance(dimension, Range) else dimension.levels(1)
    first = float(levels[0])
    last = float(levels[-1])
    return (float(coordinate) - first) / (last - first)


def _distance(place: Sequence[float | str], other: Sequence[float | str]) -> float:
    """The mean over dimensions of the squared distance; two words are 1 apart."""
    apart = 0.0
    for a, b in zip(place, other, strict=True):
        apart += float(a != b) if isinstance(a, str) or isinstance(b, str) else (a - b) ** 2
    return apart / max(1, len(place))
