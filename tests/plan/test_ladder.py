"""What would need less memory: each rung stands on the listed ones above it, and on nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from machines import CPU, GPU

from loraloom.config.asked import Config
from loraloom.facts.device import DeviceFacts
from loraloom.plan.ladder import ROOM, ladder, least
from loraloom.plan.needs import need
from loraloom.plan.planner import Facts, make_plan
from loraloom.plan.shape import decided_shape

Make = Callable[..., Facts]
WITH_BF16 = replace(CPU, bf16_native=True)
"""Where half precision makes the pass of a small model larger: its attention keeps more."""


@pytest.mark.parametrize("device", [CPU, WITH_BF16, GPU], ids=["cpu", "cpu with bf16", "gpu"])
@pytest.mark.parametrize("name", ["tiny", "minilm", "1b", "t5"])
def test_a_rung_takes_its_bytes_upon_those_above_it(facts: Make, name: str, device: DeviceFacts) -> None:
    plan = make_plan(Config(), facts(name, device=device, length=256))
    case, before = plan.case, need(plan.case, plan.shape).value
    rungs = ladder(plan.case, plan.shape)
    assert rungs
    for rung in rungs:
        lower = case.assuming(rung.change)
        packed = lower.decided.max_packed
        budget = plan.shape.token_budget if packed > 1 else None
        shape = decided_shape(
            lower.decided, packed=packed, workers=plan.shape.workers, token_budget=budget
        )
        assert rung.bytes == pytest.approx(need(lower, shape).value)
        assert rung.saved == pytest.approx(before - rung.bytes) and rung.bytes <= ROOM * before
        if rung.available:
            case, before = lower, rung.bytes


@pytest.mark.parametrize("device", [CPU, WITH_BF16, GPU], ids=["cpu", "cpu with bf16", "gpu"])
def test_the_least_is_what_its_own_changes_give(facts: Make, device: DeviceFacts) -> None:
    case = make_plan(Config(), facts("tiny", device=device, length=256)).case
    found = least(case)
    lower = case.assuming(found.change)
    assert found.need.value == pytest.approx(need(lower, decided_shape(lower.decided)).value)
    assert found.need.value < need(case, decided_shape(case.decided)).value
