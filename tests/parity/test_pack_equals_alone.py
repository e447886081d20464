"""The contract: trained in a pack and trained alone is the same training."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from engine import attention, candidate, causal_rows, largest_difference, linears, rows_for, run, trainer, weights_of

from loraloom.records import Candidate


def mixed(model: Any, heads: tuple[str, ...] = ()) -> list[Candidate]:
    """Candidates that differ in everything, whose micro-batches differ in size and number."""
    some, every = attention(model), linears(model)
    return [
        candidate("plain", model, heads=heads),
        candidate(
            "wide", model, heads=heads, r=8, lora_alpha=4, learning_rate=3e-3, per_device_train_batch_size=3, weight_decay=0.1
        ),
        candidate("wet", model, heads=heads, r=2, lora_dropout=0.3, lr_scheduler_type="cosine", warmup_ratio=0.3, seed=3),
        candidate("few", model, heads=heads, targets=some, use_rslora=True, lora_plus_ratio=4.0, max_steps=2),
        candidate(
            "slow", model, heads=heads, gradient_accumulation_steps=3, per_device_train_batch_size=1, max_grad_norm=0.1, seed=5
        ),
        candidate("biased", model, heads=heads, bias="lora_only", init_lora_weights="gaussian", optim="sgd"),
        candidate(
            "uneven", model, heads=heads, rank_pattern={every[0]: 7}, alpha_pattern={every[-1]: 3.0}, neftune_noise_alpha=None
        ),
        candidate("turned", model, heads=heads, targets=some, use_dora=True, lora_dropout=0.2, seed=11),
    ]


def assert_alike(family: str, dtype: torch.dtype, tolerance: float, **more: Any) -> None:
    chosen, rows, model = tiny.FAMILIES[family], rows_for(family), tiny.model_of(family, dtype)
    trials = mixed(model, chosen.heads)
    together = run(trainer(model, rows, chosen.task, token_budget=10_000, **more), trials)
    for one in trials:
        alone = run(trainer(model, rows, chosen.task, **more), [one])[one.id]
        difference = largest_difference(weights_of(together[one.id]), weights_of(alone))
        assert difference < tolerance, (one.id, difference)
        assert together[one.id].smoothed_loss == pytest.approx(alone.smoothed_loss, rel=max(tolerance, 1e-9))


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_each_trial_is_what_it_would_be_alone(family: str) -> None:
    assert_alike(family, torch.float64, 1e-10)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_in_float32_as_well(family: str) -> None:
    assert_alike(family, torch.float32, 1e-4)
