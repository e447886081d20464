"""Candidates that are alike share one table of A and B in a pass: nothing but the time
it takes depends on that."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from engine import attention, candidate, rows_for, run, trainer, weights_of

from loraloom.lora import packed as packed_module
from loraloom.lora.packed import PackedModel
from loraloom.lora.pass_stack import PassStack
from loraloom.lora.routing import Routing
from loraloom.lora.segment import Segment

FAMILIES = ("llama", "gpt2", "t5", "bert", "deberta")
EVEN = Routing((Segment("a", 0, 2), Segment("b", 2, 4)), True)


def alike(family: str, model: Any) -> list[Any]:
    """Three that differ in all that a table does not hold, and one of another rank that
    trains beside them."""
    heads = tiny.FAMILIES[family].heads
    return [
        candidate("a", model, heads=heads),
        candidate("b", model, heads=heads, seed=3, lora_alpha=1, lora_dropout=0.3),
        candidate(
            "c",
            model,
            heads=heads,
            seed=5,
            learning_rate=1e-3,
            gradient_accumulation_steps=2,
            bias="lora_only",
        ),
        candidate("d", model, heads=heads, r=2),
    ]


@pytest.mark.parametrize("family", [name for name in FAMILIES if name in tiny.FAMILIES])
def test_a_shared_table_changes_no_result(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, task, made = tiny.model_of(family).double(), tiny.FAMILIES[family].task, []
    rows = [row for row in rows_for(family, longest=5) if len(row.input_ids) == 4]

    class Noted(PassStack):
        def __init__(self, *args: Any) -> None:
            made.append(self)
            super().__init__(*args)

    monkeypatch.setattr(packed_module, "PassStack", Noted)
    # Packs of those that are alike and of all: the second makes each layer stack its own.
    for count in (3, 4):
        with_table = run(
            trainer(model, rows, task, token_budget=10_000, workers=1), alike(family, model)[:count]
        )
        assert bool(made) == (count == 3)
        made.clear()
        with monkeypatch.context() as patch:
            patch.setattr(packed_module, "MOST_BYTES", 0)
            without = run(
                trainer(model, rows, task, token_budget=10_000, workers=1), alike(family, model)[:count]
            )
        assert not made
        for name, seat in without.items():
            assert torch.allclose(
                weights_of(with_table[name]), weights_of(seat), rtol=1e-10, atol=1e-13
            ), name


def two(model: Any, **second: Any) -> PackedModel:
    adapters = [candidate("a", model).adapter, candidate("b", model, **second).adapter]
    packed = PackedModel(model)
    for number, (slot, adapter) in enumerate(zip("ab", adapters, strict=True)):
        packed.add(slot, adapter, number)
    return packed


def loss_of(network: Any) -> torch.Tensor:
    return network(input_ids=torch.ones(4, 6, dtype=torch.long), use_cache=False).logits.square().mean()


def test_a_pass_that_fails_leaves_no_gradient() -> None:
    packed = two(tiny.model_of("llama"))

    def fail() -> None:
        with packed.route(EVEN) as network:
            loss_of(network).backward()
            raise RuntimeError("stopped here")

    with pytest.raises(RuntimeError, match="stopped here"):
        fail()
    assert all(not adapter.arena.grads.any() for adapter in packed.adapters.values())
    with packed.route(EVEN) as network:
        loss_of(network).backward()
    assert all(adapter.arena.grads.any() for adapter in packed.adapters.values())


@pytest.mark.parametrize("differ", ["rank", "targets"])
def test_candidates_of_another_shape_have_no_table(differ: str) -> None:
    model = tiny.model_of("llama")
    packed = two(model, **({"r": 2} if differ == "rank" else {"targets": attention(model)}))
    with packed.route(EVEN) as network:
        loss_of(network).backward()
        assert packed._route.get().stack is None  # pyright: ignore[reportPrivateUsage]
    assert all(adapter.arena.grads.any() for adapter in packed.adapters.values())


def test_checkpointing_runs_layers_again_on_the_same_table() -> None:
    plain, again = two(tiny.model_of("llama")), two(tiny.model_of("llama"))
    again.checkpoint()
    for packed in (plain, again):
        torch.manual_seed(0)
        for adapter in packed.adapters.values():
            adapter.arena.weights.copy_(torch.randn_like(adapter.arena.weights) / 10)
            adapter.refresh()
        with packed.route(EVEN) as network:
            loss_of(network).backward()
    for name, adapter in plain.adapters.items():
        assert adapter.arena.grads.any()
        assert torch.equal(adapter.arena.grads, again.adapters[name].arena.grads)
