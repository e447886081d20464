"""Ranks that differ from layer to layer at the same number of parameters."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loraloom.config.asked import AdapterConfig, Config, SearchConfig, TrainingConfig
from loraloom.config.choices import MEASURED_ALLOCATIONS, RANK_ALLOCATIONS, UNIFORM
from loraloom.errors import ConfigError
from loraloom.facts.groups import group_names, thirds
from loraloom.plan.planner import Facts, candidate, make_plan
from loraloom.plan.ranks import TOLERANCE, allocate, most_important
from loraloom.plan.search_space import space_json
from loraloom.records import AdapterSpec

Make = Callable[..., Facts]
SIDES = st.integers(1, 4096)
WEIGHTS = st.floats(0, 1e6, allow_subnormal=False)
LAYERS = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=3), st.tuples(SIDES, SIDES, WEIGHTS), min_size=1, max_size=12
).filter(lambda layers: any(weight > 0 for _, _, weight in layers.values()))


def cost(sizes: dict[str, tuple[int, int]], ranks: dict[str, int]) -> int:
    return sum(rank * sum(sizes[path]) for path, rank in ranks.items())


@settings(max_examples=50)
@given(LAYERS, st.integers(1, 64))
def test_an_allocation_keeps_the_budget_and_the_order_of_weights(
    layers: dict[str, tuple[int, int, float]], r: int
) -> None:
    sizes = {path: (d, o) for path, (d, o, _) in layers.items()}
    weights = {path: weight for path, (_, _, weight) in layers.items()}
    most = {path: max(r, min(size)) for path, size in sizes.items()}

    ranks = allocate(sizes, r, weights)

    budget = r * sum(map(sum, sizes.values()))
    assert ranks.keys() == sizes.keys()
    assert all(1 <= ranks[path] <= most[path] for path in ranks)
    assert cost(sizes, ranks) <= (1 + TOLERANCE) * budget
    assert cost(sizes, ranks) > budget - max(map(sum, sizes.values()))
    for a in ranks:
        for b in ranks:
            if weights[a] > weights[b] and ranks[a] < most[a]:
                assert ranks[a] >= ranks[b]


@settings(max_examples=50)
@given(LAYERS, st.integers(1, 64), st.floats(1e-3, 1e3))
def test_equal_weights_are_one_rank_for_all(
    layers: dict[str, tuple[int, int, float]], r: int, weight: float
) -> None:
    sizes = {path: (d, o) for path, (d, o, _) in layers.items()}
    assert allocate(sizes, r, dict.fromkeys(sizes, weight)) == dict.fromkeys(sizes, r)


@pytest.mark.parametrize("wrong", [(0.0, 0.0), (-1.0, 1.0), (math.nan, 1.0), (math.inf, 1.0)])
def test_weights_that_say_nothing_are_refused(wrong: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="at least one above 0"):
        allocate({"a": (4, 4), "b": (4, 4)}, 2, dict(zip("ab", wrong, strict=True)))


def test_rank_follows_the_most_important_directions() -> None:
    sizes = {"a": (8, 8), "b": (8, 8)}
    importance = {"a": [9.0, 8.0, 7.0, 6.0], "b": [5.0, 0.1, 0.1, 0.1]}

    counts = most_important(importance, sizes, 2)

    assert counts == {"a": 3.0 + 1.0, "b": 0.0}
    assert allocate(sizes, 2, counts) == {"a": 3, "b": 1}


def test_a_direction_of_no_importance_buys_nothing() -> None:
    sizes = {"a": (8, 8), "b": (8, 8)}
    assert most_important({"a": [1.0, 0.0], "b": [0.0, 0.0]}, sizes, 2) == {"a": 1.0, "b": 0.0}


def test_thirds_are_of_each_stack_and_need_three_blocks() -> None:
    decoder = [f"decoder.block.{number}.layer.0.SelfAttention.q" for number in range(6)]
    encoder = [f"encoder.block.{number}.layer.0.SelfAttention.q" for number in range(3)]

    found = thirds([*encoder, *decoder, "shared.lm"])

    assert [found[path] for path in decoder] == ["first"] * 2 + ["middle"] * 2 + ["last"] * 2
    assert [found[path] for path in encoder] == ["first", "middle", "last"]
    assert "shared.lm" not in found
    assert thirds(["layers.0.mlp.up", "layers.1.mlp.up"]) == {}
    assert group_names(["layers.0.mlp.up"]) == {"layers.0.mlp.up": "mlp"}


def spec(facts: Facts, allocation: str, **more: object) -> AdapterSpec:
    made = AdapterConfig(rank_allocation=allocation, r=8, **more)  # pyright: ignore[reportArgumentType]
    return candidate(make_plan(Config(adapter=made), facts), "a", {}).adapter


def parameters(facts: Facts, adapter: AdapterSpec) -> int:
    return sum(
        adapter.rank_pattern.get(linear.path, adapter.r) * (linear.in_features + linear.out_features)
        for linear in facts.model.linears
        if linear.path in adapter.target_modules
    )


@pytest.mark.parametrize(
    "allocation", [one for one in RANK_ALLOCATIONS if one not in (UNIFORM, *MEASURED_ALLOCATIONS)]
)
def test_a_group_gets_more_at_the_same_parameters(facts: Make, allocation: str) -> None:
    found = facts("minilm")
    adapter, uniform = spec(found, allocation), spec(found, UNIFORM)

    assert uniform.rank_pattern == {}
    assert parameters(found, adapter) == pytest.approx(parameters(found, uniform), rel=TOLERANCE)
    third = thirds(adapter.target_modules)
    roles = {linear.path: linear.role for linear in found.model.linears}
    inside = {
        path
        for path in adapter.target_modules
        if set(allocation.split("_")) <= {roles[path], third.get(path)}
    }
    least = min(adapter.rank_pattern[path] for path in inside)
    assert least > 8 > max(adapter.rank_pattern[path] for path in adapter.rank_pattern.keys() - inside)


@pytest.mark.parametrize(("use_rslora", "power"), [(False, 1.0), (True, 0.5)])
def test_every_layer_keeps_its_scale(facts: Make, use_rslora: bool, power: float) -> None:
    adapter = spec(facts("minilm"), "mlp", lora_alpha=16.0, use_rslora=use_rslora)

    scales = {
        adapter.alpha_pattern[path] / adapter.rank_pattern[path] ** power
        for path in adapter.target_modules
    }

    assert sorted(scales) == pytest.approx([16 / 8**power] * len(scales))


def test_the_plan_tells_what_is_measured_first(facts: Make) -> None:
    space = {"adapter.rank_allocation": ["uniform", "energy", "eva"]}
    asked = Config(
        adapter=AdapterConfig(r=8),
        training=TrainingConfig(max_steps=100),
        search=SearchConfig(space=space),
    )
    notes = " ".join(make_plan(asked, facts("minilm")).notes)
    assert "ranks by energy are measured first: a training of rank 16 for 25 steps" in notes
    assert "ranks by eva" in notes
    assert "ranks by" not in " ".join(make_plan(Config(), facts("minilm")).notes)


def test_an_allocation_that_was_not_measured_stands_as_uniform_until_a_run_measures(facts: Make) -> None:
    assert spec(facts("minilm"), "energy").rank_pattern == {}


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"rank_pattern": {"q_proj": 4}}, "adapter.rank_pattern"),
        ({"alpha_pattern": {"q_proj": 4.0}}, "adapter.alpha_pattern"),
        ({"init_lora_weights": "orthogonal"}, "adapter.init_lora_weights"),
        ({"target_modules": "mlp"}, "nowhere to take rank from"),
        ({"target_modules": "attention"}, "names layers that are no targets"),
    ],
)
def test_what_cannot_go_with_an_allocation_is_refused(
    facts: Make, more: dict[str, object], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        spec(facts("minilm"), "mlp", **more)


def test_a_wide_search_of_its_own_keeps_the_layers_that_rank_is_moved_between(facts: Make) -> None:
    asked = Config(
        adapter=AdapterConfig(rank_allocation="mlp", r=8), search=SearchConfig(trials=128, pruner="none")
    )
    plan = make_plan(asked, facts("minilm"))
    uniform = make_plan(replace(asked, adapter=AdapterConfig(r=8)), facts("minilm"))

    assert "adapter.target_modules" in space_json(uniform)
    assert "adapter.target_modules" not in space_json(plan)


@pytest.mark.parametrize(
    "space",
    [
        {"adapter.target_modules": ["attention", "mlp"]},
        {"adapter.init_lora_weights": [True, "orthogonal"]},
    ],
)
def test_a_space_in_which_a_candidate_could_not_be_is_refused(
    facts: Make, space: dict[str, list[object]]
) -> None:
    space = {"adapter.rank_allocation": ["uniform", "energy"], **space}
    with pytest.raises(ConfigError, match="energy` cannot go with"):
        make_plan(Config(search=SearchConfig(space=space)), facts("minilm"))
