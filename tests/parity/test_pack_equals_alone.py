"""The contract: trained in a pack and trained alone is the same training."""

from __future__ import annotations

import pytest
import tiny
import torch
from engine import candidate, causal_rows, class_rows, largest_difference, run, trainer, weights_of


def mixed(model: object, head: str | None = None) -> list:
    attention = tuple(p for p in __import__("engine").linears(model) if "attn" in p or "attention" in p)
    return [
        candidate("plain", model, head=head),
        candidate("wide", model, head=head, r=8, lora_alpha=4, learning_rate=3e-3, per_device_train_batch_size=3, weight_decay=0.1),
        candidate("wet", model, head=head, r=2, lora_dropout=0.3, lr_scheduler_type="cosine", warmup_ratio=0.3, seed=3),
        candidate("few", model, head=head, targets=attention, use_rslora=True, lora_plus_ratio=4.0, max_steps=2),
        candidate("slow", model, head=head, gradient_accumulation_steps=3, per_device_train_batch_size=1, max_grad_norm=0.1, seed=5),
        candidate("biased", model, head=head, bias="lora_only", init_lora_weights="gaussian", optim="sgd"),
    ]


CASES = {
    "llama": (lambda dtype: tiny.causal_lm("llama", dtype), causal_rows, "causal_lm", None),
    "gpt2": (lambda dtype: tiny.causal_lm("gpt2", dtype), causal_rows, "causal_lm", None),
    "bert": (lambda dtype: tiny.classifier("bert", dtype), class_rows, "seq_cls", "classifier"),
    "llama-classifier": (lambda dtype: tiny.classifier("llama", dtype), class_rows, "seq_cls", "score"),
}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
@pytest.mark.parametrize("case", CASES)
def test_each_trial_is_what_it_would_be_alone(case: str, dtype: torch.dtype, tolerance: float) -> None:
    make, rows, task, head = CASES[case]
    model = make(dtype)
    trials = mixed(model, head)
    together = run(trainer(model, rows(), task, token_budget=10_000), trials)
    for one in trials:
        alone = run(trainer(model, rows(), task), [one])[one.id]
        difference = largest_difference(weights_of(together[one.id]), weights_of(alone))
        assert difference < tolerance, (one.id, difference)
        assert together[one.id].smoothed_loss == pytest.approx(alone.smoothed_loss, rel=max(tolerance, 1e-9))


def test_order_of_slots_and_neighbours_that_fail_change_nothing() -> None:
    model = tiny.causal_lm("llama")
    trials = mixed(model)
    wild = candidate("wild", model, learning_rate=float("inf"))
    first = run(trainer(model, causal_rows()), trials)
    engine = trainer(model, causal_rows())
    second = run(engine, [wild, *reversed(trials)])
    for one in trials:
        assert largest_difference(weights_of(second[one.id]), weights_of(first[one.id])) < 1e-10
    assert not torch.isfinite(weights_of(second["wild"])).all()


def test_joining_late_and_leaving_early_change_nothing() -> None:
    model = tiny.causal_lm("llama")
    first, second, third = candidate("a", model, max_steps=6), candidate("b", model, seed=9), candidate("c", model, r=2, seed=1)
    alone = {one.id: run(trainer(model, causal_rows()), [one])[one.id] for one in (first, second)}
    engine = trainer(model, causal_rows())

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


def test_accumulating_is_a_larger_batch() -> None:
    model = tiny.causal_lm("llama")
    whole = candidate("n", model, per_device_train_batch_size=6)
    parts = candidate("n", model, per_device_train_batch_size=1, gradient_accumulation_steps=6)
    a = run(trainer(model, causal_rows()), [whole])["n"]
    b = run(trainer(model, causal_rows()), [parts])["n"]
    assert largest_difference(weights_of(a), weights_of(b)) < 1e-10


def test_a_gradient_that_is_not_finite_changes_no_weight() -> None:
    model = tiny.causal_lm("llama")
    engine = trainer(model, causal_rows())
    seat = engine.join(candidate("x", model))
    before = seat.adapter.snapshot()
    seat.adapter.arena.grads.fill_(float("nan"))
    engine.tick()
    assert torch.equal(seat.adapter.arena.weights, before)
    assert seat.nonfinite == 1 and not seat.adapter.arena.grads.any()
