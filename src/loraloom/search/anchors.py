"""The first candidates of an automatic search: the plan's own setting, and what is known to matter most around it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loraloom.search.space import RATE, Params, Space

RATE_STEP = 3.0
"""A rate that is 3 times off costs about 1% of the loss, and the best rate is more often missed than any other setting."""
SAME = 0.1
TWIN_FROM = 4
"""With fewer trials a second seed of the plan's setting is not worth its place."""


@dataclass(frozen=True)
class Anchor:
    """A fixed early candidate."""

    params: Params
    seed_offset: int = 0


def anchors(space: Space, baseline: Mapping[str, Any], trials: int) -> list[Anchor]:
    """The plan's setting, its learning rate times 3 and over 3 (as far as the space goes), and the plan's setting again with
    a second seed: a first measure of how much a seed changes."""
    default = space.exactly(baseline)
    found = [Anchor(default)]
    if RATE in space and not space[RATE].frozen and default[RATE]:
        for factor in (RATE_STEP, 1 / RATE_STEP):
            moved = {**default, RATE: space.clip({**default, RATE: default[RATE] * factor})[RATE]}
            if all(abs(moved[RATE] / anchor.params[RATE] - 1) > SAME for anchor in found):
                found.append(Anchor(moved))
    return [*found, Anchor(default, seed_offset=1)] if trials >= TWIN_FROM else found
