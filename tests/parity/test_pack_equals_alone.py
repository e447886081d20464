"""The contract: trained in a pack and trained alone is the same training."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from engine import attention, candidate, largest_difference, linears, rows_for, run, trainer, weights_of

from loraloom.records import Candidate


def mixed(model: Any, heads: tuple[str, ...] = ()) -> list[Candidate]:
    """Candidates that differ in everything, whose micro-batches differ in size and number."""
    some, every = attention(model), linears(model)
    return [
        candidate("plain", model, heads=heads),
        candidate(
            "wide",
            model,
            heads=heads,
            r=8,
            lora_alpha=4,
            learning_rate=3e-3,
            per_device_train_batch_size=3,
            weight_decay=0.1,
        ),
        candidate(
            "wet",
            model,
            heads=heads,
            r=2,
            lora_dropout=0.3,
            lr_scheduler_type="cosine",
            warmup_ratio=0.3,
            seed=3,
        ),
        candidate(
            "few", model, heads=heads, targets=some, use_rslora=True, lora_plus_ratio=4.0, max_steps=2
        ),
        candidate(
            "slow",
            model,
            heads=heads,
            gradient_accumulation_steps=3,
            per_device_train_batch_size=1,
            max_grad_norm=0.1,
            seed=5,
        ),
        candidate(
            "biased", model, heads=heads, bias="lora_only", init_lora_weights="gaussian", optim="sgd"
        ),
        candidate(
            "uneven",
            model,
            heads=heads,
            rank_pattern={every[0]: 7},
            alpha_pattern={every[-1]: 3.0},
            neftune_noise_alpha=None,
        ),
        candidate("turned", model, heads=heads, targets=some, use_dora=True, lora_dropout=0.2, seed=11),
    ]


def assert_alike(
    family: str, dtype: torch.dtype, tolerance: float, longest: int = 14, **more: Any
) -> None:
    chosen, rows, model = (
        tiny.FAMILIES[family],
        rows_for(family, longest=longest),
        tiny.model_of(family, dtype),
    )
    trials = mixed(model, chosen.heads)
    together = run(trainer(model, rows, chosen.task, token_budget=10_000, **more), trials)
    for one in trials:
        alone = run(trainer(model, rows, chosen.task, **more), [one])[one.id]
        difference = largest_difference(weights_of(together[one.id]), weights_of(alone))
        assert difference < tolerance, (one.id, difference)
        assert together[one.id].smoothed_loss == pytest.approx(
            alone.smoothed_loss, rel=max(tolerance, 1e-9)
        )


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_each_trial_is_what_it_would_be_alone(family: str) -> None:
    assert_alike(family, torch.float64, 1e-10)


@pytest.mark.parametrize("family", ["gemma2", "llama"])
def test_rows_longer_than_a_register_are_added_up_alike(family: str) -> None:
    """Some are padded to another number of whole registers (16 float32 in the widest)
    in a pack than alone."""
    assert_alike(family, torch.float64, 1e-10, longest=40)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_each_trial_is_in_float32_what_it_would_be_alone(family: str) -> None:
    """Adam divides by gradients near zero, so a last bit grows: up to 1e-4 on some processors."""
    assert_alike(family, torch.float32, 1e-3)


@pytest.mark.parametrize("family", ["llama", "bert", "t5"])
def test_in_bfloat16_the_losses_agree(family: str) -> None:
    """Weights are kept in float32; the base and what it is multiplied with are bfloat16."""
    chosen, rows, model = tiny.FAMILIES[family], rows_for(family), tiny.model_of(family, torch.bfloat16)
    trials = mixed(model, chosen.heads)
    together = run(trainer(model, rows, chosen.task), trials)
    for one in trials:
        alone = run(trainer(model, rows, chosen.task), [one])[one.id]
        assert weights_of(alone).dtype == torch.float32 and weights_of(alone).isfinite().all()
        assert together[one.id].smoothed_loss == pytest.approx(alone.smoothed_loss, rel=1e-2)


def test_order_of_slots_and_neighbours_that_fail_change_nothing() -> None:
    model, rows = tiny.model_of("llama"), rows_for("llama")
    trials = mixed(model)
    wild = candidate("wild", model, learning_rate=float("inf"))
    first = run(trainer(model, rows), trials)
    second = run(trainer(model, rows), [wild, *reversed(trials)])
    for one in trials:
        assert largest_difference(weights_of(second[one.id]), weights_of(first[one.id])) < 1e-10
    assert not torch.isfinite(weights_of(second["wild"])).all()


def test_joining_late_and_leaving_early_change_nothing() -> None:
    model, rows = tiny.model_of("llama"), rows_for("llama")
    first, second, third = (
        candidate("a", model, max_steps=6),
        candidate("b", model, seed=9),
        candidate("c", model, r=2, seed=1),
    )
    alone = {one.id: run(trainer(model, rows), [one])[one.id] for one in (first, second)}
    engine = trainer(model, rows)

    def change(tick: int) -> None:
        if tick == 1:
            engine.join(third)
        if tick == 2:
            engine.join(second)
        if tick == 3:
            engine.leave("c")

    together = run(engine, [first], change)
    for name, seat in alone.items():
        assert largest_difference(weights_of(together[name]), weights_of(seat)) < 1e-10
    assert engine.packed.adapters == {}


@pytest.mark.parametrize("family", ["llama", "bert", "t5"])
def test_accumulating_is_a_larger_batch(family: str) -> None:
    chosen, rows, model = tiny.FAMILIES[family], rows_for(family), tiny.model_of(family)
    whole = candidate("n", model, heads=chosen.heads, per_device_train_batch_size=6)
    parts = candidate(
        "n", model, heads=chosen.heads, per_device_train_batch_size=1, gradient_accumulation_steps=6
    )
    a, b = (run(trainer(model, rows, chosen.task), [one])["n"] for one in (whole, parts))
    assert largest_difference(weights_of(a), weights_of(b)) < 1e-9


def test_a_slot_that_is_taken_again_remembers_nothing() -> None:
    model, rows = tiny.model_of("llama"), rows_for("llama")
    engine = trainer(model, rows)
    first, second = (run(engine, [candidate("same", model)])["same"] for _ in range(2))
    assert torch.equal(weights_of(first), weights_of(second))
    assert first.adapter.arena.weights.data_ptr() != second.adapter.arena.weights.data_ptr()


@pytest.mark.parametrize("family", ["gemma2", "deberta", "t5"])
def test_scores_in_a_pack_are_scores_alone(family: str) -> None:
    chosen, rows, model = tiny.FAMILIES[family], rows_for(family), tiny.model_of(family)
    trials = mixed(model, chosen.heads)[:5]
    engine = trainer(model, rows, chosen.task, validation=rows[:7], fresh_modules=chosen.heads)
    for one in trials:
        engine.join(one)
    engine.tick()
    together = engine.evaluate([one.id for one in trials])
    for one in trials:
        alone = engine.evaluate([one.id])[one.id]
        assert together[one.id].costs == pytest.approx(alone.costs, rel=1e-10)
        assert together[one.id].metrics == pytest.approx(alone.metrics, rel=1e-10)
    assert len({score.metrics["loss"] for score in together.values()}) > 1
