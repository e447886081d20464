"""Plans: what the user set is kept, what cannot be is refused, and candidates are what
the trainer takes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from machines import CPU, GIB, GPU, OLD_GPU

from loraloom.config.asked import (
    AdapterConfig,
    Config,
    DataConfig,
    LimitsConfig,
    SearchConfig,
    TrainingConfig,
)
from loraloom.errors import ConfigError, MemoryBudgetError, ModelError
from loraloom.facts.data import assumed_data
from loraloom.facts.device import DeviceFacts
from loraloom.plan.document import plan_json
from loraloom.plan.planner import Facts, candidate, make_plan, search_caps
from loraloom.plan.rules.batch import SLACK_MIB
from loraloom.records import AdapterSpec, TrainingSpec

Make = Callable[..., Facts]
BATCH = "training.per_device_train_batch_size"
KEEP = TrainingConfig(gradient_checkpointing=False)
"""Activations are kept, so that memory is short."""


def test_what_the_user_set_is_kept_and_marked(facts: Make) -> None:
    config = Config(
        adapter=AdapterConfig(r=4, lora_alpha=7, lora_dropout=0.2, target_modules=("q_proj", "v_proj")),
        training=TrainingConfig(
            learning_rate=0.01,
            num_train_epochs=5,
            weight_decay=0.3,
            seed=7,
            early_stopping_patience=None,
        ),
    )
    plan = make_plan(config, facts("tiny"))
    wanted = {
        "adapter.r": 4,
        "adapter.lora_alpha": 7,
        "adapter.lora_dropout": 0.2,
        "training.learning_rate": 0.01,
        "training.num_train_epochs": 5,
        "training.weight_decay": 0.3,
        "training.seed": 7,
        "training.early_stopping_patience": None,
    }
    for key, value in wanted.items():
        assert plan.settings[key].value == value
        assert (plan.settings[key].reason, plan.settings[key].source) == ("you asked", "config")
    assert plan.settings["adapter.target_modules"].reason == "you asked: 10 layers, q_proj,v_proj"
    assert plan.settings["training.warmup_ratio"].source != "config"


def test_a_candidate_is_complete_and_its_targets_are_paths(facts: Make) -> None:
    plan = make_plan(Config(), facts("minilm", rows=2_000, length=32))
    made = candidate(plan, "c1", {})
    assert isinstance(made.adapter, AdapterSpec) and isinstance(made.training, TrainingSpec)
    assert "bert.encoder.layer.0.attention.self.query" in made.adapter.target_modules
    assert made.adapter.modules_to_save == ("classifier",)
    assert made.params == {}
    for key, value in plan.values().items():
        section, _, name = key.partition(".")
        spec = {"adapter": made.adapter, "training": made.training}.get(section)
        if spec is not None and name in type(spec).__dataclass_fields__ and name != "target_modules":
            assert getattr(spec, name) == value, key


def test_searched_values_override_the_plan_and_nothing_else(facts: Make) -> None:
    plan = make_plan(Config(), facts("tiny"))
    plain = candidate(plan, "a", {})
    params = {"adapter.r": 4, "training.learning_rate": 0.002, "adapter.target_modules": "attention"}
    made = candidate(plan, "b", params, seed_offset=3)
    assert (made.adapter.r, made.training.learning_rate, made.training.seed) == (4, 0.002, 45)
    assert all("self_attn" in path for path in made.adapter.target_modules)
    assert made.params == params
    assert replace(made.training, learning_rate=plain.training.learning_rate, seed=42) == plain.training


def test_rank_patterns_reach_the_candidate_as_paths(facts: Make) -> None:
    plan = make_plan(
        Config(adapter=AdapterConfig(rank_pattern={"layers.0.mlp.up_proj": 2})), facts("tiny")
    )
    assert candidate(plan, "a", {}).adapter.rank_pattern == {"model.layers.0.mlp.up_proj": 2}


def test_a_candidate_has_no_unknown_setting(facts: Make) -> None:
    with pytest.raises(ConfigError, match=r"`training\.momentum` is not a setting of a candidate"):
        candidate(make_plan(Config(), facts("tiny")), "a", {"training.momentum": 0.9})


def test_a_searched_batch_that_does_not_fit_is_split_with_the_same_rows_a_step(facts: Make) -> None:
    config = Config(limits=LimitsConfig(memory="40GiB"), training=KEEP)
    plan = make_plan(config, facts("8b", device=GPU, length=2_000))
    micro = plan.settings[BATCH].value
    assert micro < 16
    for batch in (16, 32, 64):
        made = candidate(plan, "a", {BATCH: batch}).training
        rows = made.per_device_train_batch_size * made.gradient_accumulation_steps
        assert rows == batch or plan.settings["training.gradient_accumulation_steps"].value > 1
        assert made.per_device_train_batch_size < batch


@pytest.mark.parametrize("length", [40, 400])
def test_a_searched_batch_takes_no_larger_pass_than_was_forecast(facts: Make, length: int) -> None:
    plan = make_plan(Config(), facts("tiny", length=length))
    own = plan.settings[BATCH].value
    largest = max(plan.token_budget, own * plan.settings["data.max_length"].value)
    for rows in (2 * own, 4 * own, 60):
        made = candidate(plan, "a", {BATCH: rows}).training
        assert made.per_device_train_batch_size * made.gradient_accumulation_steps == rows
        assert made.per_device_train_batch_size * plan.settings["data.max_length"].value <= largest


def test_slots_are_bound_by_memory_and_by_what_pays(facts: Make) -> None:
    assert make_plan(Config(), facts("tiny")).pack_size == 8
    assert make_plan(Config(limits=LimitsConfig(max_packed=3)), facts("tiny")).pack_size == 3
    roomy = make_plan(Config(), facts("8b", device=GPU, supervised_tokens=10**9))
    tight = make_plan(
        Config(limits=LimitsConfig(memory="40GiB")), facts("8b", device=GPU, supervised_tokens=10**9)
    )
    assert 1 <= tight.pack_size < roomy.pack_size <= 16


def test_caps_let_a_search_reach_what_the_rules_allow(facts: Make) -> None:
    for name in ("tiny", "minilm", "1b"):
        plan = make_plan(Config(), facts(name, device=GPU))
        caps = search_caps(plan)
        rate = plan.settings["training.learning_rate"]
        assert rate.range is not None and caps["training.learning_rate"] >= rate.value
        assert rate.range[1] <= caps["training.learning_rate"] * 1.01
        assert caps["adapter.r"] <= plan.facts.model.hidden_size / 4 + 1
        assert caps[BATCH] == 64
    assert search_caps(make_plan(Config(), facts("tiny", rows=200)))[BATCH] < 64


def test_a_plan_as_json_has_the_promised_shape(facts: Make) -> None:
    config = Config(search=SearchConfig(trials=16))
    document = json.loads(json.dumps(plan_json(make_plan(config, facts("tiny")))))
    assert {"settings", "forecast", "search_space", "warnings"} <= set(document)
    assert list(document["search_space"]) == ["training.learning_rate", BATCH, "adapter.r"]
    assert all(
        set(entry) == {"value", "reason", "source", "range", "grade"}
        for entry in document["settings"].values()
    )
    memory = document["forecast"]["memory"]
    plan = make_plan(Config(), facts("tiny"))
    parts = sum(memory[f"{name}_bytes"] for name in plan.forecast["memory"].parts)
    assert parts == pytest.approx(memory["total_bytes"], abs=10)
    assert memory["low_bytes"] < memory["total_bytes"] < memory["high_bytes"]
    assert document["forecast"]["time"]["total_seconds"] > 0


def test_planning_is_pure(facts: Make) -> None:
    at = facts("tiny")
    assert plan_json(make_plan(Config(), at)) == plan_json(make_plan(Config(), at))


@given(
    rows=st.integers(1, 10**6),
    length=st.integers(2, 5_000),
    trials=st.integers(1, 200),
)
def test_any_data_gives_a_plan_whose_candidate_can_be_made(
    rows: int, length: int, trials: int, model: Callable[..., object]
) -> None:
    from machines import data

    plan = make_plan(Config(), Facts(model("tiny"), data(rows=rows, length=length), CPU))  # type: ignore[arg-type]
    made = candidate(plan, "a", {})
    assert made.training.learning_rate > 0 and 0 <= made.training.warmup_ratio < 1
    assert made.training.per_device_train_batch_size >= 1 and made.adapter.r >= 1


# -- warnings
# -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"leaked_rows": 12}, "12 held-out rows are also trained on"),
        ({"repeated_rows": 900}, "900 of 5,000 training rows repeat"),
        ({"supervised_lost": 0.2}, "lose their end"),
        ({"label_counts": (4_900, 100), "label_names": ("a", "b")}, "98% of the rows have one label"),
        ({"label_counts": (5_000, 0), "label_names": ("a", "b")}, "no training row has the label b"),
    ],
)
def test_data_that_will_disappoint_is_warned_of(facts: Make, more: dict[str, object], said: str) -> None:
    assert any(said in warning for warning in make_plan(Config(), facts("tiny", **more)).warnings)


def test_good_data_with_weights_warns_of_nothing(facts: Make) -> None:
    at = facts("tiny")
    assert make_plan(Config(), replace(at, model=replace(at.model, weights_problem=None))).warnings == ()


def test_assumed_data_and_missing_weights_are_told(facts: Make) -> None:
    plan = make_plan(Config(), replace(facts("tiny"), data=assumed_data("causal_lm")))
    assert any("10,000 rows of 512 tokens are assumed" in warning for warning in plan.warnings)
    assert any("no model.safetensors" in warning for warning in plan.warnings)


def test_experts_slow_precision_and_short_time_are_told(facts: Make) -> None:
    assert any("4 experts" in warning for warning in make_plan(Config(), facts("mixtral")).warnings)
    slow = make_plan(Config(training=TrainingConfig(precision="bf16")), facts("tiny"))
    assert any("emulates bf16" in warning for warning in slow.warnings)
    hurried = make_plan(Config(limits=LimitsConfig(time="1s")), facts("8b", device=GPU))
    assert any("1 are allowed" in warning for warning in hurried.warnings)


# -- what cannot be
# ---------------------------------------------------------------------------------------------------


def test_targets_that_match_nothing_are_refused_before_memory_is_looked_at(facts: Make) -> None:
    config = Config(
        adapter=AdapterConfig(target_modules=("q_proj", "qkv")), limits=LimitsConfig(memory="1MB")
    )
    with pytest.raises(ModelError, match="`qkv` matches nothing; this model has q_proj"):
        make_plan(config, facts("tiny"))


def test_a_module_to_save_that_is_not_there(facts: Make) -> None:
    with pytest.raises(
        ModelError, match="names `classifer`, which BertForSequenceClassification does not have"
    ) as error:
        make_plan(Config(adapter=AdapterConfig(modules_to_save=("classifer",))), facts("minilm"))
    assert "classifier" in str(error.value)


def test_a_module_to_save_may_be_named_by_the_end_of_its_path(facts: Make) -> None:
    plan = make_plan(
        Config(adapter=AdapterConfig(modules_to_save=("pooler", "classifier"))), facts("minilm")
    )
    assert plan.settings["adapter.modules_to_save"].value == ("bert.pooler", "classifier")
    assert not any("pooler" in path for path in candidate(plan, "a", {}).adapter.target_modules)


def test_a_target_that_is_also_trained_whole(facts: Make) -> None:
    config = Config(adapter=AdapterConfig(target_modules=("q_proj",), modules_to_save=("q_proj",)))
    with pytest.raises(ModelError, match="both a LoRA target and a module that is trained whole"):
        make_plan(config, facts("tiny"))


def test_a_length_beyond_the_positions(facts: Make) -> None:
    with pytest.raises(
        ConfigError, match=r"`data\.max_length` is 600 but .* has 512 positions"
    ) as error:
        make_plan(Config(data=DataConfig(max_length=600)), facts("tiny"))
    assert "data.max_length: 512" in str(error.value)


def test_a_budget_that_nothing_fits_names_the_parts_and_the_smallest_that_would(facts: Make) -> None:
    at, tight = facts("8b", device=GPU), Config(limits=LimitsConfig(memory="2GiB"))
    with pytest.raises(MemoryBudgetError) as error:
        make_plan(tight, at)
    text = str(error.value)
    assert error.value.exit_code == 2
    assert "nothing fits into 2.0 GiB" in text and "weights 5.3 GiB" in text
    assert "next: limits.memory: " in text
    smallest, cuts = named_way_out(text)
    assert make_plan(with_changes(tight, {"limits.memory": f"{smallest}MiB", **cuts}), at).pack_size >= 1
    with pytest.raises(MemoryBudgetError):
        make_plan(with_changes(tight, {"limits.memory": f"{smallest - SLACK_MIB - 2}MiB", **cuts}), at)


@pytest.mark.parametrize(
    ("name", "device", "training"),
    [
        ("1b", CPU, TrainingConfig()),
        ("1b", GPU, KEEP),
        ("minilm", CPU, KEEP),
        ("minilm", OLD_GPU, TrainingConfig(per_device_train_batch_size=64)),
        ("t5", CPU, TrainingConfig(per_device_train_batch_size=64)),
    ],
)
def test_the_smallest_budget_plans_with_the_cuts_that_it_names(
    facts: Make, name: str, device: DeviceFacts, training: TrainingConfig
) -> None:
    at, tight = facts(name, device=device), Config(limits=LimitsConfig(memory="1MiB"), training=training)
    with pytest.raises(MemoryBudgetError) as error:
        make_plan(tight, at)
    smallest, cuts = named_way_out(str(error.value))
    assert make_plan(with_changes(tight, {"limits.memory": f"{smallest}MiB", **cuts}), at).pack_size >= 1


def test_where_cuts_would_fit_the_error_names_the_first_that_do(facts: Make) -> None:
    at, tight = (
        facts("8b", device=GPU, length=4_000),
        Config(limits=LimitsConfig(memory="32GiB"), training=KEEP),
    )
    with pytest.raises(MemoryBudgetError) as error:
        make_plan(tight, at)
    text = str(error.value)
    assert "next: training.gradient_checkpointing: true" in text and "max_length" not in text
    assert make_plan(with_changes(tight, {"training.gradient_checkpointing": True}), at).pack_size >= 1


def test_a_machine_that_is_too_small_is_not_told_to_allow_more(facts: Make) -> None:
    small = replace(GPU, total_bytes=2 * GIB, free_bytes=2 * GIB)
    with pytest.raises(
        MemoryBudgetError, match=r"next: a smaller model, or a machine with more free memory"
    ) as error:
        make_plan(Config(), facts("8b", device=small))
    assert "need: a budget of " in str(error.value)


def named_way_out(text: str) -> tuple[int, dict[str, Any]]:
    """The budget in MiB that an error names, and the cuts that it takes."""
    found = re.search(r"need: a budget of (\d+)MiB at least(?:, with (.*))?", text)
    assert found, text
    return int(found[1]), yaml.safe_load("\n".join((found[2] or "").split(", "))) or {}


def with_changes(config: Config, changes: Mapping[str, Any]) -> Config:
    """The request with values set by dotted key."""
    for key, value in changes.items():
        section, _, name = key.partition(".")
        config = replace(config, **{section: replace(getattr(config, section), **{name: value})})
    return config


def test_a_micro_batch_that_the_user_fixed_and_that_does_not_fit_names_one_that_does(
    facts: Make,
) -> None:
    limits = LimitsConfig(memory="30GiB")
    fixed = Config(limits=limits, training=TrainingConfig(per_device_train_batch_size=64))
    with pytest.raises(
        MemoryBudgetError, match=r"`training\.per_device_train_batch_size` is 64"
    ) as error:
        make_plan(fixed, facts("8b", device=GPU, length=500))
    fits = int(str(error.value).split("next: training.per_device_train_batch_size: ")[1].split()[0])
    again = Config(limits=limits, training=TrainingConfig(per_device_train_batch_size=fits))
    assert make_plan(again, facts("8b", device=GPU, length=500)).values()[BATCH] == fits
