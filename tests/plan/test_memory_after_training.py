"""The forecast of writing answers and of merging, against caches and updates that
transformers and PEFT really make."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as tf
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer

from loraloom.config.asked import AdapterConfig, Config, ModelConfig
from loraloom.evals.writing import BATCH
from loraloom.plan.memory_after_training import COPIES, FULL, cache_bytes
from loraloom.plan.planner import Facts, make_plan

Make = Callable[..., Facts]
LENGTH = 24


def cached(cache: Any) -> int:
    """Bytes of keys and values; of an encoder-decoder both its caches."""
    if hasattr(cache, "cross_attention_cache"):
        return cached(cache.self_attention_cache) + cached(cache.cross_attention_cache)
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)


@pytest.mark.parametrize(
    ("name", "auto"), [("tiny", tf.AutoModelForCausalLM), ("t5", tf.AutoModelForSeq2SeqLM)]
)
def test_the_cache_is_the_one_that_the_model_keeps(facts: Make, name: str, auto: Any) -> None:
    at = facts(name, length=LENGTH)
    model, ids = auto.from_config(at.model.config).eval(), torch.full((BATCH, LENGTH), 5)
    decoder = {"decoder_input_ids": ids} if name == "t5" else {}
    with torch.no_grad():
        held = cached(model(input_ids=ids, use_cache=True, **decoder).past_key_values)
    one_layer = held / at.model.layers
    assert cache_bytes(make_plan(Config(), at).case, LENGTH) == pytest.approx(held + one_layer)


def test_a_merge_makes_no_update_larger_than_was_forecast(facts: Make) -> None:
    at = facts("tiny")
    plan = make_plan(Config(adapter=AdapterConfig(r=4)), at)
    network: Any = tf.AutoModelForCausalLM.from_config(at.model.config)
    names = [linear.path for linear in plan.case.linears]
    model = get_peft_model(network, LoraConfig(r=4, target_modules=names))
    updates = [m.get_delta_weight("default").nbytes for m in model.modules() if isinstance(m, LoraLayer)]  # type: ignore[operator]
    parts = plan.forecast["export"].parts
    assert parts["merge"] == COPIES * max(updates)
    assert parts["adapters"] == sum(p.numel() for p in model.parameters() if p.requires_grad) * FULL


def test_parts_sum_to_the_value_inside_its_range(facts: Make) -> None:
    for name in ("tiny", "t5", "mixtral"):
        forecast = make_plan(Config(), facts(name)).forecast
        for estimate in (forecast["generation"], forecast["export"]):
            assert sum(estimate.parts.values()) == pytest.approx(estimate.value)
            assert estimate.low < estimate.value < estimate.high and estimate.unit == "bytes"


def test_a_classifier_writes_nothing_and_can_be_merged(facts: Make) -> None:
    forecast = make_plan(Config(), facts("minilm")).forecast
    assert "generation" not in forecast and forecast["export"].parts["merge"] > 0


def test_half_precision_halves_the_cache_but_nothing_of_an_export(facts: Make) -> None:
    at = facts("1b")
    full, half = (
        make_plan(Config(model=ModelConfig(dtype=dtype)), at).forecast
        for dtype in ("float32", "bfloat16")
    )
    assert half["generation"].parts["cache"] == full["generation"].parts["cache"] / 2
    assert half["export"].parts == full["export"].parts, "weights go by tensor by tensor"
    assert "weights" not in half["export"].parts


def test_longer_rows_need_a_larger_cache(facts: Make) -> None:
    short, long = (
        make_plan(Config(), facts("1b", length=length)).forecast["generation"] for length in (100, 400)
    )
    assert (
        long.parts["cache"] == 4 * short.parts["cache"] and long.parts["logits"] == short.parts["logits"]
    )
