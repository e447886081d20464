"""A base that is brought piece by piece: where the plan takes it, what it costs, where it is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from machines import CPU, GIB, GPU

from loraloom.config.asked import Config, LimitsConfig, ModelConfig, TrainingConfig
from loraloom.errors import ConfigError, MemoryBudgetError
from loraloom.plan.ladder import ladder
from loraloom.plan.planner import Facts, Plan, make_plan
from loraloom.plan.shape import Shape
from loraloom.plan.time import streaming_seconds

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
    assert one.change[KEY] is True and one.saved > 4 * GIB
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


# -- from the host to a GPU --------------------------------------------------------------------------


def test_a_gpu_takes_blocks_from_the_host_where_not_even_four_bits_fit(
    facts: Callable[..., Facts],
) -> None:
    at = facts("8b", device=GPU, length=512)
    coded, streamed = planned(at, "12GiB"), planned(at, "6GiB")
    assert coded.values()["model.quantization"] == "nf4" and coded.values()[KEY] is False
    advice = streamed.settings[KEY]
    assert advice.value is True and "of weights stay on the host" in advice.reason
    assert streamed.values()["model.quantization"] == "nf4"
    assert streamed.values()["training.gradient_checkpointing"]
    assert streamed.forecast["memory"].high <= 6 * GIB
    weights = streamed.forecast["memory"].parts["weights"]
    assert weights < coded.forecast["memory"].parts["weights"] - 2 * GIB
    assert any("wait in the host's memory" in note for note in streamed.notes)


def test_many_tokens_a_pass_hide_the_copies(facts: Callable[..., Facts]) -> None:
    """Above f b / (3 l) tokens: 5e14 x 0.4 operations a second, 2 bytes, 2e10 bytes a second."""
    plan = make_plan(
        Config(model=ModelConfig(streaming=True), training=TrainingConfig(gradient_checkpointing=True)),
        facts("8b", device=GPU, length=64),
    )
    few, many = (
        streaming_seconds(plan.case, Shape(rows, 64, checkpointing=True, streaming=True))
        for rows in (8, 128)
    )
    assert few > 0 == many


def test_blocks_have_to_be_run_again(facts: Callable[..., Facts]) -> None:
    config = Config(
        model=ModelConfig(streaming=True), training=TrainingConfig(gradient_checkpointing=False)
    )
    with pytest.raises(ConfigError, match="needs gradient checkpointing"):
        make_plan(config, facts("8b", device=GPU))
