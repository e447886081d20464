"""The flat optimiser against torch's own over the separate tensors, and the arena it works in."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from loraloom.lora.arena import Arena, Entry
from loraloom.records import TrainingSpec
from loraloom.train.optim import FlatOptimizer, gradient_norms

ENTRIES = [
    Entry("y", "bias", "vector", (3,), relative=True),
    Entry("y", "lora_B.weight", "lora_B", (3, 2)),
    Entry("head", "weight", "module", (2, 5)),
    Entry("y", "lora_A.weight", "lora_A", (2, 4)),
    Entry("x", "lora_B.weight", "lora_B", (5, 1)),
]


def arena_of(seed: int = 0) -> Arena:
    arena = Arena(ENTRIES, torch.float64, "cpu")
    arena.weights.copy_(
        torch.randn(arena.numel, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    )
    return arena


def test_an_arena_is_one_block_in_groups_with_views_into_it() -> None:
    arena = arena_of()
    assert [name for name, _ in arena.slices()] == ["lora_A", "lora_B", "module", "vector"]
    assert [entry.numel for entry in arena.entries] == [8, 6, 5, 10, 3] and arena.numel == 32
    arena.weight(ENTRIES[1]).fill_(7.0)
    assert int((arena.weights == 7).sum()) == 6
    parameter = arena.parameter(ENTRIES[2])
    (parameter * 2).sum().backward()
    assert bool((arena.grad(ENTRIES[2]) == 2).all()) and int((arena.grads != 0).sum()) == 10
    snapshot = arena.weights.clone()
    arena.weights.zero_()
    assert bool((arena.view(snapshot, ENTRIES[1]) == 7).all())


@pytest.mark.parametrize("optim", ["adamw", "sgd"])
@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_a_flat_step_is_torchs_step_on_every_tensor(optim: Any, clip: float) -> None:
    spec = TrainingSpec(
        learning_rate=0.0, optim=optim, weight_decay=0.1, lora_plus_ratio=4.0, max_grad_norm=clip
    )
    arena = arena_of()
    flat = FlatOptimizer(arena, spec)
    theirs = {entry.key: nn.Parameter(arena.weight(entry).clone()) for entry in arena.entries}
    groups = [
        {
            "params": [theirs[e.key]],
            "weight_decay": 0.0 if e.group == "vector" else 0.1,
            "speed": 4.0 if e.group == "lora_B" else 1.0,
        }
        for e in arena.entries
    ]
    optimizer = (
        torch.optim.AdamW(groups, lr=0.0)
        if optim == "adamw"
        else torch.optim.SGD(groups, lr=0.0, momentum=0.9)
    )
    for step in range(4):
        arena.grads.copy_(
            torch.randn(arena.numel, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        )
        for entry in arena.entries:
            theirs[entry.key].grad = arena.grad(entry).clone()
        (norm,) = gradient_norms([arena])
        assert float(norm) == pytest.approx(float(arena.grads.norm()))
        if clip:
            nn.utils.clip_grad_norm_(list(theirs.values()), clip)
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * group["speed"]
        assert torch.equal(flat.step(1e-2), norm)
        optimizer.step()
        assert not arena.grads.any()
        for entry in arena.entries:
            assert torch.allclose(arena.weight(entry), theirs[entry.key], rtol=0, atol=1e-12), entry.key


def test_a_step_with_a_bad_gradient_leaves_weights_and_moments() -> None:
    arena = arena_of()
    flat = FlatOptimizer(arena, TrainingSpec(learning_rate=0.1))
    arena.grads.fill_(1.0)
    flat.step(0.1)
    before, moments = (
        arena.weights.clone(),
        {name: value.clone() for name, value in flat.state_dict().items()},
    )
    arena.grads.fill_(1.0)
    arena.grads[3] = float("inf")
    assert not torch.isfinite(flat.step(0.1))
    assert torch.equal(arena.weights, before) and not arena.grads.any()
    assert all(torch.equal(moments[name], value) for name, value in flat.state_dict().items())


@pytest.mark.parametrize("optim", ["adamw", "sgd"])
def test_state_goes_over_to_another_optimiser(optim: Any) -> None:
    spec = TrainingSpec(learning_rate=0.1, optim=optim)
    first = FlatOptimizer(arena_of(), spec)
    first.arena.grads.fill_(1.0)
    first.step(0.1)
    second = FlatOptimizer(arena_of(), spec)
    second.arena.weights.copy_(first.arena.weights)
    second.load_state_dict(first.state_dict())
    for flat in (first, second):
        flat.arena.grads.fill_(-0.5)
        flat.step(0.1)
    assert torch.equal(first.arena.weights, second.arena.weights)
