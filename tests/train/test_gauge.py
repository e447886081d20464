"""Signals of a training against the plain way to get them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from loraloom.lora.adapter_weights import AdapterWeights
from loraloom.lora.arena import Arena, Entry
from loraloom.records import AdapterSpec
from loraloom.train.signals import first_norms, module_updates

RANKS = {"one": 3, "two": 3, "three": 5}


def adapter(b_scale: float = 1.0, spread: Tensor | None = None) -> AdapterWeights:
    """Three layers of two ranks with random A and B."""
    entries = [Entry(path, "lora_A.weight", "lora_A", (r, 11)) for path, r in RANKS.items()]
    entries += [Entry(path, "lora_B.weight", "lora_B", (7, r)) for path, r in RANKS.items()]
    arena = Arena(entries, torch.float32, "cpu")
    arena.weights.copy_(torch.randn(arena.numel, generator=torch.Generator().manual_seed(0)))
    for entry in arena.entries:
        if entry.group == "lora_B":
            arena.weight(entry).mul_(b_scale)
    spec = AdapterSpec(3, 6.0, 0.0, tuple(RANKS), rank_pattern={"three": 5}, alpha_pattern={"two": 12.0})
    return AdapterWeights("t", spec, arena)


def parts(made: AdapterWeights, path: str) -> tuple[Tensor, Tensor]:
    found = {entry.group: tensor.double() for entry, tensor in made.tensors() if entry.path == path}
    return found["lora_A"], found["lora_B"]


def test_sizes_and_ranks_are_those_of_the_product() -> None:
    made = adapter()
    norms = {"one": 2.0, "two": 3.0, "three": 4.0}
    found = module_updates(made, norms)
    squares: dict[str, float] = {}
    for path, scale in (("one", 2.0), ("two", 4.0), ("three", 6.0 / 5)):
        a_RD, b_OR = parts(made, path)
        delta_OD = scale * b_OR @ a_RD
        values = torch.linalg.svdvals(delta_OD)[: RANKS[path]]
        shares = values / values.sum()
        squares[path] = float(delta_OD.square().sum())
        assert found[path].effective_rank == pytest.approx(
            math.exp(-float((shares * shares.log()).sum())), rel=1e-6
        )
        assert found[path].update == pytest.approx(float(delta_OD.norm()) / norms[path], rel=1e-6)
        assert found[path].b_norm == pytest.approx(float(b_OR.norm()), rel=1e-6)
    for path, module in found.items():
        assert module.energy == pytest.approx(squares[path] / sum(squares.values()), rel=1e-6)


def test_one_direction_has_an_effective_rank_of_one() -> None:
    made = adapter()
    for entry, tensor in made.tensors():
        if entry.group == "lora_A":
            tensor.copy_(tensor[:1].clone().expand_as(tensor))
    assert all(
        module.effective_rank == pytest.approx(1.0, abs=1e-3)
        for module in module_updates(made, dict.fromkeys(RANKS, 1.0)).values()
    )


def test_an_adapter_that_never_moved() -> None:
    found = module_updates(adapter(b_scale=0.0), dict.fromkeys(RANKS, 1.0))
    assert [(m.b_norm, m.update, m.effective_rank, m.energy) for m in found.values()] == [
        (0.0, 0.0, 0.0, 0.0)
    ] * 3


def test_weights_that_are_not_finite_have_no_modules_to_tell_of() -> None:
    assert module_updates(adapter(b_scale=math.nan), dict.fromkeys(RANKS, 1.0)) == {}


def test_first_norms_are_taken_group_by_group() -> None:
    made = adapter()
    for entry in made.arena.entries:
        made.arena.grad(entry).fill_(2.0 if entry.group == "lora_A" else 0.0)
    count = sum(r * 11 for r in RANKS.values())
    assert [float(norm) for norm in first_norms(made)] == [pytest.approx(2.0 * math.sqrt(count)), 0.0]
