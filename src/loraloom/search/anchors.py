"""The first candidates of an automatic search: the plan's own setting, what won before,
and what is known to matter most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loraloom.search.history import Known, tried_again
from loraloom.search.space import RATE, Params, Space
from loraloom.search.values import Kind

RATE_STEP = 3.0
"""A rate that is 3 times off costs about 1% of the loss, and the best rate is more
often missed than any other setting."""
SAME = 0.1
TWIN_FROM = 4
"""With fewer trials a second seed of the plan's setting is not worth its place."""


@dataclass(frozen=True)
class Anchor:
    """A fixed early candidate; `reason` says whose setting it was, where it is tried again."""

    params: Params
    seed_offset: int = 0
    kind: Kind = "anchor"
    reason: str = ""


def anchors(
    space: Space,
    baseline: Mapping[str, Any],
    trials: int,
    known: Sequence[Known] = (),
    *,
    twin: bool = True,
) -> list[Anchor]:
    """The plan's setting; the one of earlier searches that is worth another try; the plan's with its
    learning rate times 3 and over 3 (as far as the space goes), and with `twin` the plan's again with a
    second seed: a first measure of how much a seed changes."""
    default = space.exactly(baseline)
    found = [Anchor(default, kind="default")]
    if RATE in space and not space[RATE].frozen and default[RATE]:
        for factor in (RATE_STEP, 1 / RATE_STEP):
            moved = {**default, RATE: space.clip({**default, RATE: default[RATE] * factor})[RATE]}
            if not any(_same(moved, anchor.params) for anchor in found):
                found.append(Anchor(moved))
    again = tried_again(space, baseline, known)
    if again is not None and not any(_same(again[0], anchor.params) for anchor in found):
        found.insert(1, Anchor(again[0], kind="history", reason=again[1]))
    return [*found, Anchor(default, seed_offset=1)] if twin and trials >= TWIN_FROM else found


def _same(params: Params, other: Params) -> bool:
    """Whether two settings differ in nothing but a little of their learning rate."""
    rate = params.get(RATE)
    base = other.get(RATE)
    near = rate == base or bool(rate and base and abs(rate / base - 1) <= SAME)
    return near and {**params, RATE: None} == {**other, RATE: None}
