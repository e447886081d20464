"""Blocks' inputs on the host: where the plan takes it, what it costs, where it is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from machines import CPU, GPU

from loraloom.config.asked import Config, LimitsConfig, TrainingConfig
from loraloom.errors import ConfigError
from loraloom.plan.ladder import ladder
from loraloom.plan.needs import need
from loraloom.plan.planner import Facts, make_plan
from loraloom.plan.shape import Shape
from loraloom.plan.time import forecast_time, offload_share

KEY = "training.gradient_checkpointing"
OFFLOAD = Config(training=TrainingConfig(gradient_checkpointing="offload"))
LONG = 4_096


def test_a_device_without_memory_of_its_own_has_nothing_to_gain(facts: Callable[..., Facts]) -> None:
    with pytest.raises(ConfigError) as caught:
        make_plan(OFFLOAD, facts("1b", device=CPU))
    text = str(caught.value)
    assert f"`{KEY}: offload` cannot be used on this device" in text
    assert "got: a processor" in text and "need: a CUDA device" in text and f"next: {KEY}: true" in text
    with pytest.raises(ConfigError, match="cannot be told of PEFT"):
        make_plan(replace(OFFLOAD, engine="peft"), facts("1b", device=GPU))


def test_two_inputs_of_blocks_stay_on_the_device(facts: Callable[..., Facts]) -> None:
    plan = make_plan(OFFLOAD, facts("8b", device=GPU, length=LONG))
    kept, moved = (need(plan.case, Shape(1, LONG, checkpointing=how)) for how in (True, "offload"))
    one_input = LONG * 4096 * 2
    assert kept.parts["activations"] - moved.parts["activations"] == (32 - 2) * one_input


def test_the_plan_takes_it_where_a_row_does_not_fit_otherwise(facts: Callable[..., Facts]) -> None:
    at = facts("8b", device=GPU, length=LONG)
    kept = make_plan(Config(training=TrainingConfig(gradient_checkpointing=True)), at)
    one, less = (need(kept.case, Shape(1, LONG, checkpointing=how)).high for how in (True, "offload"))
    roomy, tight = (Config(limits=LimitsConfig(memory=int(size) + 1)) for size in (one, less))
    assert make_plan(roomy, at).values()[KEY] is True
    taken = make_plan(tight, at).settings[KEY]
    assert taken.value == "offload" and "on the host, where they take 1.0 GiB" in taken.reason
    assert make_plan(tight, at).values()["model.quantization"] == "none"


def test_its_rung_comes_before_fewer_bits_and_has_a_price(facts: Callable[..., Facts]) -> None:
    plan = make_plan(Config(), facts("8b", device=GPU, length=LONG))
    rungs = {rung.name: rung for rung in ladder(plan.case, Shape(4, LONG))}
    names = list(rungs)
    rung = rungs["inputs of blocks on the host"]
    assert names.index("gradient checkpointing") + 1 == names.index(rung.name)
    assert rung.change == {KEY: "offload"} and rung.saved > 0
    assert rung.seconds == offload_share(plan.case) == 0  # products of an 8B hide the copies


def test_a_narrow_model_pays_for_its_copies(facts: Callable[..., Facts]) -> None:
    at = facts("tiny", device=GPU)
    plain = make_plan(Config(training=TrainingConfig(gradient_checkpointing=True)), at)
    moved = make_plan(OFFLOAD, at)
    assert offload_share(moved.case) > 0
    assert forecast_time(moved.case).parts["training"] > forecast_time(plain.case).parts["training"]
