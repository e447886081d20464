"""Goals and presets: each bends the rules that it says it bends, says so, and gives way
to what the user set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import CPU, GIB, GPU, data

from loraloom.config.asked import AdapterConfig, Config, LimitsConfig, TrainingConfig
from loraloom.config.keys import keys
from loraloom.errors import ConfigError
from loraloom.plan import engine
from loraloom.plan.adjust import Bent, bent, to
from loraloom.plan.case import Case, Decided
from loraloom.plan.goals import GOALS
from loraloom.plan.planner import Facts, Plan, candidate, make_plan
from loraloom.plan.presets import PRESETS
from loraloom.plan.rules import RULES
from loraloom.plan.rules.rank import width_cap
from loraloom.records import Advice

Make = Callable[..., Facts]
BATCH, ACCUMULATION = "training.per_device_train_batch_size", "training.gradient_accumulation_steps"
RATE, EPOCHS, DROPOUT = "training.learning_rate", "training.num_train_epochs", "adapter.lora_dropout"


def planned(facts: Facts, **config: Any) -> Plan:
    return make_plan(Config(**config), facts)


def changed(facts: Facts, **config: Any) -> dict[str, tuple[Any, Any]]:
    """What a request changes against an empty one: key -> (before, after)."""
    before, after = planned(facts).values(), planned(facts, **config).values()
    return {
        key: (before[key], after[key])
        for key in before
        if before[key] != after[key] and key not in ("goal", "preset")
    }


# -- all of them
# ------------------------------------------------------------------------------------------------------


def test_the_names_are_those_that_the_config_takes() -> None:
    assert set(GOALS) == set(
        keys()["goal"].need.removeprefix("one of ").replace(" or ", ", ").split(", ")
    )
    assert all(name in keys()["preset"].need for name in PRESETS)


def test_they_only_bend_settings_that_have_a_rule() -> None:
    for lean in (*GOALS.values(), *PRESETS.values()):
        assert set(lean.bends) <= set(RULES)


@pytest.mark.parametrize("goal", [goal for goal in GOALS if goal != "auto"])
def test_each_goal_changes_something_and_its_reasons_name_it(facts: Make, goal: Any) -> None:
    at = facts("1b", device=GPU, percentiles={95: 120})
    plan = planned(at, goal=goal)
    bent_here = {
        key for key, advice in plan.settings.items() if advice.reason.startswith(f"goal {goal}: ")
    }
    assert bent_here and bent_here <= GOALS[goal].bends.keys() & changed(at, goal=goal).keys()
    assert all("; without it " in plan.settings[key].reason for key in bent_here)
    assert plan.settings["goal"].value == goal and plan.settings["goal"].reason == GOALS[goal].says


@pytest.mark.parametrize("preset", list(PRESETS))
def test_each_preset_changes_something_and_its_reasons_name_it(facts: Make, preset: Any) -> None:
    changes: set[str] = set()
    for rows in (900, 5_000):
        at = facts("minilm" if preset == "sentiment" else "1b", device=GPU, rows=rows)
        plan = planned(at, preset=preset)
        spoken = {key for key, advice in plan.settings.items() if f"preset {preset}: " in advice.reason}
        assert spoken <= PRESETS[preset].bends.keys()
        changes |= changed(at, preset=preset).keys() & spoken
        assert plan.values()["preset"] == preset
    assert changes


@pytest.mark.parametrize("preset", ["memory-episodic", "under-8gb", "question-answering"])
def test_what_the_user_set_wins_over_preset_and_goal(facts: Make, preset: Any) -> None:
    adapter = AdapterConfig(r=4, lora_alpha=5, lora_dropout=0.3, target_modules=("q_proj",))
    training = TrainingConfig(learning_rate=0.01, per_device_train_batch_size=2)
    plan = planned(
        facts("1b", device=GPU), preset=preset, goal="retain", adapter=adapter, training=training
    )
    values = plan.values()
    assert [values[f"adapter.{name}"] for name in ("r", "lora_alpha", "lora_dropout")] == [4, 5, 0.3]
    assert (values[RATE], values[BATCH]) == (0.01, 2)
    assert plan.settings["adapter.r"].source == "config"


def test_a_preset_wins_over_a_goal(facts: Make) -> None:
    advice = planned(facts("1b", device=GPU), preset="question-answering", goal="fastest").settings[
        "adapter.r"
    ]
    assert advice.value == 32 and "preset question-answering" in advice.reason


def test_what_follows_from_a_setting_follows_the_bent_value(facts: Make) -> None:
    at = facts("1b", device=GPU)
    plain, wide = planned(at), planned(at, goal="quality")
    assert wide.values()[RATE] == pytest.approx(plain.values()[RATE] * 4**0.25, rel=0.01)
    assert "32/64 = 0.5" in wide.settings["adapter.lora_alpha"].reason


@pytest.mark.parametrize("name", ["tiny", "minilm", "t5"])
def test_no_rank_exceeds_what_the_width_bears(facts: Make, name: str) -> None:
    at = facts(name)
    for lean in ({"goal": "quality"}, {"preset": "memory-spatial"}, {"preset": "memory-episodic"}):
        assert planned(at, **lean).values()["adapter.r"] <= max(16, width_cap(at.model))


def test_a_bend_that_agrees_keeps_the_rule_s_source_and_adds_a_word(facts: Make) -> None:
    rule, case = Advice(8, "a rule", "a paper", (4, 16), "B"), Case(facts("tiny"), Config(), Decided())
    same = bent(rule, "goal g", to(8, "so say I", "me"), case)
    assert same == Advice(8, "a rule; goal g: so say I", "a paper", (4, 16), "B")
    assert (
        bent(rule, "goal g", None, case) is rule and bent(rule, "goal g", lambda *_: None, case) is rule
    )


def test_a_range_is_widened_to_hold_the_bent_value(facts: Make) -> None:
    case = Case(facts("tiny"), Config(), Decided())
    assert bent(Advice(8, "", "", (4, 16), "B"), "x", lambda *_: Bent(1, "", "", "C"), case).range == (
        1,
        16,
    )
    assert bent(
        Advice(0.0, "", "", (0.0, 0.1, 0.2), "B"), "x", lambda *_: Bent(0.5, "", "", "C"), case
    ).range == (
        0,
        0.1,
        0.2,
        0.5,
    )
    assert bent(
        Advice("a", "", "", ("a", "b"), "B"), "x", lambda *_: Bent("b", "", "", "C"), case
    ).range == ("a", "b")


@given(
    goal=st.sampled_from([goal for goal in GOALS if goal != "chat"]),
    preset=st.sampled_from(
        [None, *(name for name, found in PRESETS.items() if "causal_lm" in found.tasks)]
    ),
    rows=st.integers(1, 10**6),
    length=st.integers(2, 2_000),
)
def test_any_goal_with_any_preset_gives_a_candidate(
    goal: Any, preset: Any, rows: int, length: int, model: Callable[..., Any]
) -> None:
    plan = planned(Facts(model("tiny"), data(rows=rows, length=length), CPU), goal=goal, preset=preset)
    made = candidate(plan, "a", {})
    assert (
        made.training.num_train_epochs >= 1
        and made.adapter.r >= 1
        and 0 <= made.adapter.lora_dropout <= 0.1
    )
    offered = plan.settings[RATE].range
    assert offered is not None and offered[0] <= made.training.learning_rate <= offered[1]


# -- goals
# -------------------------------------------------------------------------------------------------------


def test_retain_moves_the_base_less(facts: Make) -> None:
    at = facts("1b", device=GPU, supervised_tokens=10**8)
    plain, kept = planned(at).values(), planned(at, goal="retain").values()
    assert plain["adapter.r"] > 16 == kept["adapter.r"]
    assert kept[EPOCHS] == 1 < plain[EPOCHS]
    without = planned(at, adapter=AdapterConfig(r=16)).values()[RATE]
    assert kept[RATE] == pytest.approx(without / 2, rel=0.01)


def test_quality_makes_no_more_passes_where_nothing_tells_the_best(facts: Make) -> None:
    at = facts("1b", device=GPU)
    assert planned(at, goal="quality").values()[EPOCHS] == 4
    assert EPOCHS not in changed(facts("1b", device=GPU, validation_rows=0), goal="quality")
    fixed = TrainingConfig(max_steps=100)
    assert (
        planned(at, goal="quality", training=fixed).values()[EPOCHS]
        == planned(at, training=fixed).values()[EPOCHS]
    )


def test_chat_is_noise_for_language_models_only(facts: Make) -> None:
    assert changed(facts("1b", device=GPU), goal="chat") == {"training.neftune_noise_alpha": (None, 5.0)}
    with pytest.raises(ConfigError, match="`goal: chat` is for language models") as error:
        planned(facts("minilm"), goal="chat")
    assert "the task is seq_cls" in str(error.value) and error.value.exit_code == 2


def test_memory_takes_the_least_and_the_same_rows_a_step(facts: Make) -> None:
    at = facts("8b", device=GPU)
    plain, small = planned(at), planned(at, goal="memory")
    assert small.forecast["memory"].value < plain.forecast["memory_one"].value
    values = small.values()
    assert (values[BATCH], values[ACCUMULATION], values["limits.max_packed"]) == (
        1,
        plain.values()[BATCH],
        1,
    )
    assert (values["adapter.target_modules"], values["adapter.r"]) == ("mlp", 8)
    assert values["training.gradient_checkpointing"] is engine.GRADIENT_CHECKPOINTING


def test_memory_keeps_the_windows_that_the_user_set(facts: Make) -> None:
    config = TrainingConfig(gradient_accumulation_steps=4)
    values = planned(facts("1b", device=GPU), goal="memory", training=config).values()
    assert (values[BATCH], values[ACCUMULATION]) == (4, 4)


@pytest.mark.parametrize("goal", ["memory", "fastest"])
def test_bf16_is_taken_where_hardware_has_it(facts: Make, goal: Any) -> None:
    assert planned(facts("tiny", device=GPU), goal=goal).values()["training.precision"] == "bf16"
    assert planned(facts("tiny", device=CPU), goal=goal).values()["training.precision"] == "fp32"


def test_fastest_cuts_the_longest_rows_and_passes_once(facts: Make) -> None:
    at = facts("1b", device=GPU, percentiles={95: 121})
    values = planned(at, goal="fastest").values()
    assert (values["data.max_length"], values[EPOCHS], values[DROPOUT], values["adapter.r"]) == (
        128,
        1,
        0.0,
        8,
    )
    assert (
        planned(facts("minilm", rows=200), goal="fastest").values()[EPOCHS]
        < planned(facts("minilm", rows=200)).values()[EPOCHS]
    )


# -- presets
# -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "name", "wanted"),
    [
        (
            "3-4b",
            "1b",
            {"adapter.r": 16, "adapter.lora_alpha": 32, "training.weight_decay": 0.001, EPOCHS: 2},
        ),
        (
            "sentiment",
            "minilm",
            {"adapter.r": 16, "adapter.lora_alpha": 32, DROPOUT: 0.1, "adapter.bias": "none"},
        ),
        (
            "generation",
            "1b",
            {"adapter.r": 16, "adapter.lora_alpha": 32, DROPOUT: 0.05, "adapter.bias": "none"},
        ),
        (
            "question-answering",
            "1b",
            {"adapter.r": 32, "adapter.lora_alpha": 64, DROPOUT: 0.1, "adapter.bias": "none"},
        ),
        (
            "under-8gb",
            "1b",
            {"adapter.r": 8, "adapter.lora_alpha": 16, DROPOUT: 0.05, "adapter.target_modules": "mlp"},
        ),
        (
            "memory-episodic",
            "1b",
            {"adapter.r": 16, "adapter.lora_alpha": 32, DROPOUT: 0.0, RATE: 2e-4, EPOCHS: 4},
        ),
        (
            "memory-relational",
            "1b",
            {"adapter.r": 16, "adapter.lora_alpha": 32, DROPOUT: 0.0, RATE: 2e-4},
        ),
        ("memory-spatial", "1b", {"adapter.r": 32, "adapter.lora_alpha": 64, DROPOUT: 0.0, EPOCHS: 3}),
    ],
)
def test_values_of_presets(facts: Make, preset: Any, name: str, wanted: dict[str, Any]) -> None:
    values = planned(facts(name, device=GPU, rows=5_000, length=64), preset=preset).values()
    assert {key: values[key] for key in wanted} == wanted


def test_large_data_keep_the_rule_s_dropout_and_the_reason_says_so(facts: Make) -> None:
    advice = planned(facts("minilm", rows=60_000), preset="sentiment").settings[DROPOUT]
    assert (
        advice.value == 0.0
        and "common advice takes 0.1, but the more data, the less dropout helps" in advice.reason
    )


def test_alpha_of_a_preset_follows_the_rank_that_the_user_set(facts: Make) -> None:
    plan = planned(facts("minilm"), preset="sentiment", adapter=AdapterConfig(r=4))
    assert plan.values()["adapter.lora_alpha"] == 8


@pytest.mark.parametrize("preset", ["memory-episodic", "memory-relational"])
def test_a_memory_s_rate_is_one_at_which_one_sighting_is_learnt(facts: Make, preset: Any) -> None:
    assert planned(facts("tiny"), preset=preset).values()[RATE] >= 1e-3


def test_under_8gb_bounds_the_memory_and_brings_its_goal(facts: Make) -> None:
    at = facts("1b", device=GPU)
    plan = planned(at, preset="under-8gb")
    assert plan.values()["goal"] == "memory" and plan.config.limits.memory == "8GB"
    assert plan.forecast["memory"].high <= 8e9
    named = planned(at, preset="under-8gb", goal="quality", limits=LimitsConfig(memory=20 * GIB))
    assert named.values()["goal"] == "quality" and named.config.limits.memory == 20 * GIB


@pytest.mark.parametrize(
    ("preset", "name", "got"),
    [
        ("sentiment", "1b", "causal_lm on a decoder"),
        ("generation", "minilm", "seq_cls on an encoder"),
        ("3-4b", "minilm", "encoder"),
    ],
)
def test_a_preset_for_another_task_is_refused_with_those_that_suit(
    facts: Make, preset: Any, name: str, got: str
) -> None:
    with pytest.raises(ConfigError, match=rf"`preset: {preset}` is for") as error:
        planned(facts(name), preset=preset)
    assert got in str(error.value) and "memory-episodic" in str(error.value)
    needed = " or ".join(PRESETS[preset].tasks) + (" on a decoder" if preset == "3-4b" else "")
    assert f"need: {needed}\n" in str(error.value)
