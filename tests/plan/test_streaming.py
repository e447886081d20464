"""A base that is brought piece by piece: where the plan takes it, what it costs, where it is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from machines import CPU, GIB

from loraloom.config.asked import Config, LimitsConfig, ModelConfig
from loraloom.errors import ConfigError, MemoryBudgetError
from loraloom.plan.ladder import ladder
from loraloom.plan.planner import Facts, Plan, make_plan
from loraloom.plan.shape import Shape

KEY = "model.streaming"
BF16_CPU = replace(CPU, bf16_native=True)


@pytest.fixture
def stored(facts: Callable[..., Facts]) -> Callable[..., Facts]:
    """An 8B in files of one type."""

    def make(dtype: str = "bfloat16", **more: Any) -> Facts:
        found = facts("8b", device=BF16_CPU, **more)
        return replace(found, model=replace(found.model, dtype=dtype))

    return make


def planned(at: Facts, memory: str, **model: Any) -> Plan:
    return make_plan(Config(limits=LimitsConfig(memory=memory), model=ModelConfig(**model)), at)


def test_a_base_that_does_not_fit_stays_in_its_files(stored: Callable[..., Facts]) -> None:
    roomy, tight = planned(stored(), "64GiB"), planned(stored(), "4GiB")
    assert roomy.values()[KEY] is False and "streamed" not in roomy.forecast
    advice = tight.settings[KEY]
    assert advice.value is True and "15.0 GiB of weights stay in their files" in advice.reason
    assert tight.values()["model.quantization"] == "none"
    assert tight.forecast["memory"].high <= 4 * GIB
    # What is mapped is told apart, and so is the time of reading it.
    assert tight.forecast["streamed"].value == roomy.forecast["memory"].parts["weights"]
    assert tight.forecast["time"].parts["streaming"] > 0
    assert any("--resume goes on from its last checkpoint" in note for note in tight.notes)


def test_its_rung_says_its_price(stored: Callable[..., Facts]) -> None:
    plan = planned(stored(), "64GiB")
    one, two = (
        next(
            rung
            for rung in ladder(plan.case, Shape(rows, 200))
            if rung.name == "weights that stay in their files"
        )
        for rows in (1, 2)
    )
    assert one.change[KEY] is True and one.saved > 5 * GIB
    assert one.seconds > two.seconds > 0  # more tokens a pass, less waiting for each


@pytest.mark.parametrize(
    ("dtype", "asked", "said"),
    [
        ("float32", {}, "got: float32 in the files, bfloat16 wanted"),
        ("bfloat16", {"quantization": "nf4"}, "next: model.quantization: none"),
    ],
)
def test_what_would_be_a_copy_is_refused(
    dtype: str, asked: dict[str, Any], said: str, stored: Callable[..., Facts]
) -> None:
    with pytest.raises(ConfigError) as caught:
        planned(stored(dtype), "64GiB", streaming=True, **asked)
    assert said in str(caught.value) and f"`{KEY}: true`" in str(caught.value)


def test_it_is_not_taken_where_it_would_be_a_copy(stored: Callable[..., Facts]) -> None:
    with pytest.raises(MemoryBudgetError):
        planned(stored("float32"), "2GiB", dtype="bfloat16")


def test_no_forecast_of_peft_has_it(stored: Callable[..., Facts]) -> None:
    config = Config(engine="peft", model=ModelConfig(streaming=True))
    with pytest.raises(ConfigError, match="cannot be used here"):
        make_plan(config, stored())
