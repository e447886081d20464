"""Where the plan takes NF4 by itself and where not, what that costs, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from machines import CPU, GIB, GPU, OLD_GPU

from loraloom.config.asked import Config, LimitsConfig, ModelConfig, TrainingConfig
from loraloom.errors import ConfigError
from loraloom.facts.device import DeviceFacts
from loraloom.plan.ladder import ladder
from loraloom.plan.needs import need
from loraloom.plan.planner import Facts, Plan, make_plan
from loraloom.plan.shape import Shape
from loraloom.plan.time import forecast_time, spreading_seconds, spreading_share
from loraloom.plan.weight_memory import coded_linears

Make = Callable[..., Facts]
KEY, CHECKPOINTING = "model.quantization", "training.gradient_checkpointing"
NATIVE = replace(CPU, bf16_native=True)
DEVICES = {"cpu": replace(NATIVE, total_bytes=80 * GIB, free_bytes=79 * GIB), "cuda": GPU}


def within(facts: Facts, memory: int, **asked: Any) -> Plan:
    return make_plan(Config(limits=LimitsConfig(memory=memory), **asked), facts)


def smallest(facts: Facts, quantization: str) -> int:
    """What one row of one candidate takes, every cut that costs no quality made."""
    case = make_plan(Config(), facts).case
    kind = "offload" if facts.device.kind == "cuda" else True
    shape = Shape(1, case.decided.length, checkpointing=kind, quantization=quantization)
    nothing = replace(case, asked=replace(case.asked, limits=LimitsConfig(memory=1)))
    return int(need(nothing, shape).high) + 1


@pytest.mark.parametrize("device", DEVICES.values(), ids=DEVICES)
def test_nf4_is_taken_where_it_is_needed_and_not_where_it_is_not(
    facts: Make, device: DeviceFacts
) -> None:
    at = facts("8b", device=device)
    whole, coded = (smallest(at, kind) for kind in ("none", "nf4"))
    assert coded < whole / 2
    assert within(at, whole).values()[KEY] == "none"
    tight = within(at, whole - 2**28)
    assert tight.values()[KEY] == "nf4" and tight.forecast["memory"].high < whole
    assert "do not fit into" in tight.settings[KEY].reason
    assert "longer" in tight.settings[KEY].reason
    assert within(at, coded).values()[KEY] == "nf4"


@pytest.mark.parametrize("device", DEVICES.values(), ids=DEVICES)
@pytest.mark.parametrize("kind", ["nf4", "int8", "none"])
def test_what_is_asked_for_is_taken(facts: Make, device: DeviceFacts, kind: Any) -> None:
    plan = make_plan(Config(model=ModelConfig(quantization=kind)), facts("1b", device=device))
    assert plan.values()[KEY] == kind and plan.settings[KEY].source == "config"


def test_a_budget_is_met_by_the_cuts_in_their_order(facts: Make) -> None:
    """Cheapest first: recomputing before four bits, four bits before files."""
    at = facts("8b", device=DEVICES["cpu"])
    taken: list[tuple[bool, str, bool]] = []
    for memory in range(60, 3, -1):
        try:
            values = within(at, memory * GIB).values()
        except Exception:  # nothing fits any more
            break
        found = (values[CHECKPOINTING], values[KEY], values["model.streaming"])
        if found not in taken:
            taken.append(found)
    assert taken == [(False, "none", False), (True, "none", False), (True, "nf4", False)]


def test_where_the_files_hold_what_is_computed_they_are_the_last_resort(facts: Make) -> None:
    at = facts("8b", device=DEVICES["cpu"])
    at = replace(at, model=replace(at.model, dtype="bfloat16"))
    values = within(at, smallest(at, "nf4") - 2**29).values()
    assert values[KEY] == "none" and values["model.streaming"] is True


def test_the_ladder_says_what_four_bits_cost(facts: Make) -> None:
    at = facts("8b", device=DEVICES["cpu"])
    plan = make_plan(Config(), at)
    names = [rung.name for rung in ladder(plan.case, plan.shape)]
    rungs = {rung.name: rung for rung in ladder(plan.case, plan.shape)}
    four = rungs["NF4 base with double quantisation"]
    assert four.available and four.saved > 9 * GIB and "MMLU" in four.quality
    assert names.index("gradient checkpointing") < names.index(four.name)
    shape = replace(plan.shape, checkpointing=True, quantization="nf4", packed=1)
    assert four.seconds == spreading_share(plan.case, replace(shape, token_budget=None)) > 0


def test_the_ladder_says_what_a_pack_is_worth(facts: Make) -> None:
    """Short rows leave much of a pass to others, rows that fill it nothing."""
    prices: list[float] = []
    for rows, length in ((100, 16), (5_000, 512)):
        plan = make_plan(Config(), facts("1b", device=DEVICES["cpu"], rows=rows, length=length))
        rungs = {rung.name: rung for rung in ladder(plan.case, plan.shape)}
        prices.append(rungs["one candidate at a time"].seconds)
    assert prices[0] > prices[1] == 0


def test_weights_are_spread_twice_a_pass_and_three_times_where_blocks_run_again(facts: Make) -> None:
    at = facts("1b", device=DEVICES["cpu"])
    model = ModelConfig(quantization="nf4")
    kept, again = (
        make_plan(
            Config(model=model, training=TrainingConfig(gradient_checkpointing=how, max_steps=7)), at
        )
        for how in (False, True)
    )
    numbers = sum(linear.parameters for linear in coded_linears(at.model))
    cores = at.device.threads
    assert spreading_seconds(kept.case, False) == pytest.approx(2 * numbers * 2e-10 / cores)
    assert spreading_seconds(kept.case, True) == pytest.approx(3 * numbers * 2e-10 / cores)
    parts = [forecast_time(plan.case).parts["spreading"] for plan in (kept, again)]
    assert parts[1] == pytest.approx(parts[0] * 3 / 2)
    plain = make_plan(Config(training=TrainingConfig(max_steps=7)), at)
    assert "spreading" not in forecast_time(plain.case).parts


def test_a_pack_spreads_for_all_of_its_candidates_together(facts: Make) -> None:
    plan = make_plan(
        Config(model=ModelConfig(quantization="nf4")), facts("1b", device=DEVICES["cpu"], length=32)
    )
    alone, packed = (
        forecast_time(plan.case, trials=4, packed=size, token_budget=4096).parts["spreading"]
        for size in (1, 4)
    )
    assert alone == pytest.approx(4 * packed)


def stored(facts: Facts, method: str = "gptq") -> Facts:
    """The same model as if its files were quantised."""
    return replace(facts, model=replace(facts.model, prequantized=method, coded_bytes=10_000))


def test_a_folder_that_is_quantised_is_taken_as_it_is_and_said_to_be(facts: Make) -> None:
    plan = make_plan(Config(), stored(facts("tiny")))
    assert plan.values()[KEY] == "none"
    assert "quantised by gptq already" in plan.settings[KEY].reason
    assert any("quantised by gptq already" in note for note in plan.notes)
    assert not any("quantised by" in note for note in make_plan(Config(), facts("tiny")).notes)
    assert "codes of gptq" in plan.settings["model.dtype"].reason
    assert not [text for text in plan.warnings if "quantis" in text]
    assert plan.forecast["time"].parts["spreading"] > 0


REFUSED = {
    "codes of codes": (
        "tiny",
        "gptq",
        CPU,
        Config(model=ModelConfig(quantization="int8")),
        ("needs the full weights", "quantised by gptq already", "leave model.quantization out"),
    ),
    "8 bits under float16": (
        "1b",
        None,
        OLD_GPU,
        Config(model=ModelConfig(quantization="int8", dtype="float16")),
        ("over a float16 base", "model.dtype: float16", "model.quantization: nf4"),
    ),
    "another device": (
        "1b",
        None,
        DeviceFacts("mps", "a Mac", 64 * GIB, 60 * GIB, 8, bf16_native=False),
        Config(model=ModelConfig(quantization="nf4")),
        ("cannot be used on this device", "a Mac", "model.quantization: none"),
    ),
}


@pytest.mark.parametrize(("name", "method", "device", "asked", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_refused(
    facts: Make, name: str, method: str | None, device: DeviceFacts, asked: Config, said: tuple[str, ...]
) -> None:
    at = facts(name, device=device)
    with pytest.raises(ConfigError) as caught:
        make_plan(asked, stored(at, method) if method else at)
    text = str(caught.value)
    assert all(part in text for part in (*said, "  got: ", "  need: ", "  next: ")), text


@pytest.mark.parametrize(("device", "fits", "large"), [("cpu", "1b", "8b"), ("cuda", "1b", "8b")])
def test_under_8gb_takes_four_bits_where_16_do_not_fit(
    facts: Make, device: str, fits: str, large: str
) -> None:
    whole, coded = (
        make_plan(Config(preset="under-8gb"), facts(name, device=DEVICES[device], length=128))
        for name in (fits, large)
    )
    assert (whole.values()[KEY], coded.values()[KEY]) == ("none", "nf4")
    assert coded.forecast["memory"].high <= 8e9 and "preset under-8gb" in coded.settings[KEY].reason


def test_goal_memory_takes_the_fewest_bits_and_leaves_stored_codes_alone(facts: Make) -> None:
    for device in DEVICES.values():
        at = facts("1b", device=device)
        assert make_plan(Config(goal="memory"), at).values()[KEY] == "nf4"
        assert make_plan(Config(goal="memory"), stored(at)).values()[KEY] == "none"
