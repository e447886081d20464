"""Which preset a memory trains by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import pytest

from loraloom.plan.presets import PRESETS
from loraloom.recall.items import Kind
from loraloom.recall.presets import PRESET_OF, preset_of


@pytest.mark.parametrize(
    ("kinds", "preset"),
    [
        ((), "memory-episodic"),
        (("fact",), "memory-relational"),
        (("event", "fact", "fact"), "memory-relational"),
        (("trajectory", "fact", "trajectory", "event"), "memory-spatial"),
        (("fact", "event"), "memory-episodic"),
        (("trajectory", "fact"), "memory-relational"),
    ],
)
def test_the_preset_is_that_of_the_kind_that_most_items_have(kinds: Sequence[Kind], preset: str) -> None:
    assert preset_of(kinds) == preset
    assert preset_of(reversed(kinds)) == preset


def test_every_kind_has_a_preset_of_the_plan() -> None:
    assert set(PRESET_OF) == set(get_args(Kind)) and set(PRESET_OF.values()) <= set(PRESETS)
