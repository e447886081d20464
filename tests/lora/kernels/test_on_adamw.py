"""The optimiser's kernel against the candidates' own optimisers, one after another."""

from __future__ import annotations

import pytest
import torch

from loraloom.lora.adapter_weights import AdapterWeights
from loraloom.lora.arena import Arena, Entry
from loraloom.records import AdapterSpec, TrainingSpec
from loraloom.train.optim import FlatOptimizer, Step, step_all

SPECS = (
    TrainingSpec(learning_rate=1e-2, weight_decay=0.1, max_grad_norm=0.5, lora_plus_ratio=4.0),
    TrainingSpec(learning_rate=1e-3, max_grad_norm=0.0),
    TrainingSpec(learning_rate=1e-3, optim="sgd"),
)
RATES = (1e-2, 3e-3, 1e-3)


def pack(device: torch.device, dtype: torch.dtype) -> list[tuple[FlatOptimizer, AdapterWeights]]:
    """Adapters of different sizes with A, B, a module and a vector, whose layers multiply in `dtype`."""
    torch.manual_seed(0)
    found: list[tuple[FlatOptimizer, AdapterWeights]] = []
    for k, spec in enumerate(SPECS):
        a, b = (
            Entry("x", "lora_A.weight", "lora_A", (3 + k, 401)),
            Entry("x", "lora_B.weight", "lora_B", (7, 3 + k)),
        )
        rest = [Entry("head", "weight", "module", (5, 7)), Entry("head", "bias", "vector", (5,))]
        arena = Arena([a, b, *rest], torch.float32, device)
        arena.weights.copy_(torch.randn(arena.numel))
        adapter = AdapterWeights(f"s{k}", AdapterSpec(3 + k, 8.0, 0.0, ("x",)), arena)
        adapter.seen(a, dtype)
        adapter.refresh()
        found.append((FlatOptimizer(arena, spec), adapter))
    return found


def stepped(
    those: list[tuple[FlatOptimizer, AdapterWeights]],
    number: int,
    *,
    kernels: bool,
    bad: int | None = None,
) -> None:
    torch.manual_seed(number)
    steps: list[Step] = []
    for k, (optimizer, adapter) in enumerate(those):
        adapter.arena.grads.copy_(torch.randn(adapter.arena.numel))
        if k == bad:
            adapter.arena.grads[3] = torch.nan
        steps.append(Step(optimizer, adapter, RATES[k], adapter.arena.grads.norm().cpu()))
    step_all(steps, kernels=kernels)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_one_launch_steps_each_candidate_as_alone(dtype: torch.dtype, device: torch.device) -> None:
    ours, theirs = pack(device, dtype), pack(device, dtype)
    for number in range(3):
        for those, kernels in ((ours, True), (theirs, False)):
            stepped(those, number, kernels=kernels, bad=1 if number == 1 else None)
    # What the kernel has left is taken over by torch, and the other way round.
    stepped(ours, 3, kernels=False)
    stepped(theirs, 3, kernels=False)
    stepped(ours, 4, kernels=True)
    stepped(theirs, 4, kernels=False)
    for (optimizer, adapter), (expected, twin) in zip(ours, theirs, strict=True):
        assert not adapter.arena.grads.any()
        torch.testing.assert_close(adapter.arena.weights, twin.arena.weights, rtol=1e-5, atol=1e-7)
        assert adapter.block is not None and twin.block is not None
        # The interpreter cuts bfloat16 off where a GPU rounds: a last bit.
        masters = adapter.arena.weights[: adapter.arena.lora_numel]
        torch.testing.assert_close(
            adapter.block.float(), masters, rtol=2**-7 if dtype == torch.bfloat16 else 0.0, atol=0.0
        )
        state, other = optimizer.state_dict(), expected.state_dict()
        assert state.keys() == other.keys()
        for name, value in state.items():
            torch.testing.assert_close(value, other[name], rtol=1e-5, atol=1e-7)


def test_a_step_with_a_bad_gradient_changes_nothing(device: torch.device) -> None:
    those = pack(device, torch.bfloat16)
    before = [adapter.arena.weights.clone() for _, adapter in those]
    stepped(those, 0, kernels=True, bad=0)
    assert torch.equal(those[0][1].arena.weights, before[0]) and not those[0][1].arena.grads.any()
    assert not torch.equal(those[1][1].arena.weights, before[1])
    assert those[0][0].count == 0 and those[1][0].count == 1
