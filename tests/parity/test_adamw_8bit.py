"""AdamW with moments of 8 bits: its kernel against a readable twin and against float32, a pack against
each candidate alone, and a run that goes on. On a CPU the same operation is there, only slower."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from engine import candidate, causal_rows, run, trainer, weights_of
from torch import Tensor

from loraloom.errors import RequestError
from loraloom.lora.arena import Arena, Entry
from loraloom.plan.memory import STATE_BYTES
from loraloom.records import Candidate, TrainingSpec
from loraloom.train import checkpoint
from loraloom.train.adamw_8bit import EightBitAdamW, require
from loraloom.train.optim import BETAS, EPS, FlatOptimizer

pytest.importorskip("bitsandbytes", reason="needs bitsandbytes: pip install 'loraloom[quant]'")

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
ENTRIES = [
    Entry("x", "lora_A.weight", "lora_A", (4, 150)),
    Entry("x", "lora_B.weight", "lora_B", (90, 4)),
    Entry("x", "bias", "vector", (3,)),
]
"""Pieces that are no multiple of a block, and one far smaller than a block."""
BLOCK = 256
NEAR = 1e-4
"""Of a scale: on a CPU bitsandbytes looks for the nearest code among 2^15 places."""
TABLES = {
    sign: torch.tensor(
        sorted(
            [0.0, 1.0]
            + [
                side * 10.0 ** (power - 6) * (0.1 + 0.9 * (part + 0.5) / parts)
                for power in range(7)
                for parts in [2 ** (power + (sign == "unsigned"))]
                for part in range(parts)
                for side in ([1, -1] if sign == "signed" else [1])
            ]
        )
    )
    for sign in ("signed", "unsigned")
}
"""Dynamic trees (arXiv:1511.04561): each power of ten below has half as many steps as the one above."""


def spread(codes: Tensor, scales: Tensor, table: Tensor) -> Tensor:
    return table[codes.long()] * scales.repeat_interleave(BLOCK)[: len(codes)]


def quantised(moment: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest code of each number, and the largest size of each block of 256."""
    scales = torch.stack([part.abs().max() for part in moment.split(BLOCK)])
    shares = moment / scales.repeat_interleave(BLOCK)[: len(moment)].clamp(min=1e-38)
    codes = (shares[:, None] - table).abs().argmin(dim=1)
    return codes.to(torch.uint8), scales


def twin_step(
    weights: Tensor, grads: Tensor, state: Mapping[str, Tensor], rate: float, decay: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weights and state after one step: AdamW in float32, between spreading and quantising. With the
    state come the moments that were quantised."""
    step = float(state["step"]) + 1
    first = spread(state["first_codes"], state["first_scales"], TABLES["signed"])
    second = spread(state["second_codes"], state["second_scales"], TABLES["unsigned"])
    first = BETAS[0] * first + (1 - BETAS[0]) * grads
    second = BETAS[1] * second + (1 - BETAS[1]) * grads**2
    size = first / (1 - BETAS[0] ** step)
    size = size / ((second / (1 - BETAS[1] ** step)).sqrt() + EPS)
    codes, scales = quantised(first, TABLES["signed"])
    others, sizes = quantised(second, TABLES["unsigned"])
    after = {"first_codes": codes, "first_scales": scales}
    after |= {"second_codes": others, "second_scales": sizes, "first": first, "second": second}
    return weights * (1 - rate * decay) - rate * size, after


def flat(optim: str, device: str = "cpu", **more: Any) -> FlatOptimizer:
    arena = Arena(ENTRIES, torch.float32, device)
    arena.weights.copy_(torch.randn(arena.numel, generator=torch.Generator().manual_seed(0)))
    values: dict[str, Any] = {"weight_decay": 0.1, "lora_plus_ratio": 4.0, **more}
    return FlatOptimizer(arena, TrainingSpec(learning_rate=0.0, optim=optim, **values))


def pull(one: FlatOptimizer, step: int) -> None:
    """A noisy gradient towards a point that is far from the weights, each number of its own size."""
    draw, numel = torch.Generator().manual_seed(1), one.arena.numel
    target, sizes = torch.randn(numel, generator=draw), torch.rand(numel, generator=draw) + 0.1
    noise = torch.randn(numel, generator=torch.Generator().manual_seed(step + 2))
    gradient = sizes * (one.arena.weights.cpu() - target) + 0.1 * noise
    one.arena.grads.copy_(gradient)


@pytest.mark.parametrize("device", DEVICES)
def test_each_step_is_that_of_the_readable_twin(device: str) -> None:
    """Each from what the kernel held before it, so that no difference in rounding grows."""
    ours = flat("adamw_8bit", device, max_grad_norm=0.0)
    for step in range(12):
        pull(ours, step)
        expected: list[Tensor] = []
        states: list[dict[str, Tensor]] = []
        held = ours.state_dict()
        for number, (group, piece) in enumerate(ours.arena.slices()):
            state = {key[2:]: held[key].cpu() for key in held if key.startswith(f"{number}.")}
            speed, decay = (4.0 if group == "lora_B" else 1.0), (0.0 if group == "vector" else 0.1)
            before, grads = ours.arena.weights[piece].cpu(), ours.arena.grads[piece].cpu()
            weights, after = twin_step(before, grads, state, 1e-2 * speed, decay)
            expected.append(weights)
            states.append(after)
        ours.step(1e-2)
        assert torch.allclose(ours.arena.weights.cpu(), torch.cat(expected), atol=1e-4)
        held = ours.state_dict()
        for number, after in enumerate(states):
            for moment, table in (("first", "signed"), ("second", "unsigned")):
                codes, scales = (held[f"{number}.{moment}_{part}"].cpu() for part in ("codes", "scales"))
                assert torch.allclose(scales, after[f"{moment}_scales"], rtol=1e-5)
                sizes = scales.repeat_interleave(BLOCK)[: len(codes)]
                theirs, nearest = (
                    (spread(these, scales, TABLES[table]) - after[moment]).abs() / sizes
                    for these in (codes, after[f"{moment}_codes"])
                )
                assert bool((theirs <= nearest + NEAR).all()), moment


@pytest.mark.parametrize("device", DEVICES)
def test_fifty_steps_end_near_those_of_float32(device: str) -> None:
    ours, theirs = flat("adamw_8bit", device), flat("adamw", device)
    start = ours.arena.weights.clone()
    for step in range(50):
        for one in (ours, theirs):
            pull(one, step)
            one.step(1e-3)
    moved = (theirs.arena.weights - start).norm()
    assert float((ours.arena.weights - theirs.arena.weights).norm() / moved) < 0.1
    assert not torch.equal(ours.arena.weights, theirs.arena.weights)


def test_two_moments_take_what_the_plan_counts() -> None:
    for optim, expected in STATE_BYTES.items():
        one = FlatOptimizer(
            Arena([Entry("x", "lora_A.weight", "lora_A", (64, BLOCK))], torch.float32, "cpu"),
            TrainingSpec(learning_rate=0.0, optim=optim),
        )
        one.step(1e-3)
        held = sum(value.nbytes for key, value in one.state_dict().items() if "step" not in key)
        assert held == expected * one.arena.numel, optim


def test_a_step_with_a_bad_gradient_leaves_weights_and_moments() -> None:
    ours = flat("adamw_8bit")
    pull(ours, 0)
    ours.step(1e-2)
    before = ours.arena.weights.clone()
    kept = {name: value.clone() for name, value in ours.state_dict().items()}
    pull(ours, 1)
    ours.arena.grads[3] = float("nan")
    assert not torch.isfinite(ours.step(1e-2))
    assert torch.equal(ours.arena.weights, before) and not ours.arena.grads.any()
    assert all(torch.equal(kept[name], value) for name, value in ours.state_dict().items())


def test_without_bitsandbytes_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(RequestError) as caught:
        require("cpu")
    text = str(caught.value)
    assert "moments of 8 bits" in text and "loraloom[quant]" in text and "training.optim: adamw" in text


def test_a_build_without_the_kernel_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    require("cpu")

    def missing(*_: object) -> None:
        raise AttributeError("no such symbol")

    monkeypatch.setattr(EightBitAdamW, "_step", missing)
    with pytest.raises(RequestError, match="cannot step moments of 8 bits") as caught:
        require("cpu")
    assert "no such symbol" in str(caught.value) and "training.optim: adamw" in str(caught.value)


def those(model: Any) -> list[Candidate]:
    values: dict[str, dict[str, Any]] = {
        "plain": {},
        "rates": {"learning_rate": 3e-3, "lora_plus_ratio": 4.0, "weight_decay": 0.1},
        "clipped": {"max_grad_norm": 0.01, "r": 3},
        "windows": {"gradient_accumulation_steps": 2, "use_dora": True},
    }
    made = [candidate(name, model, optim="adamw_8bit", **more) for name, more in values.items()]
    return [*made, candidate("float32", model)]


@pytest.mark.parametrize("device", DEVICES)
def test_a_pack_is_each_candidate_alone(device: str) -> None:
    """In float64, which on a CPU is rounded only at the kernel, no code can fall on another side. A GPU
    has float32 alone: there a few do, and what is learnt hardly differs."""
    dtype, near = (torch.float64, 1e-6) if device == "cpu" else (torch.float32, 0.02)
    model, rows = tiny.model_of("llama", dtype).to(device), causal_rows()
    together = run(trainer(model, rows), those(model))
    for one in those(model):
        alone = run(trainer(model, rows), [one])[one.id]
        left, right = weights_of(together[one.id]), weights_of(alone)
        assert float((left - right).norm() / right.norm()) < near, one.id
    plain, float32 = (weights_of(together[name]) for name in ("plain", "float32"))
    assert float((plain - float32).norm() / float32.norm()) > 1e-5


@pytest.mark.parametrize("device", DEVICES)
def test_going_on_from_disk_restores_codes_and_scales(device: str, tmp_path: Path) -> None:
    model, rows = tiny.model_of("llama", torch.float32).to(device), causal_rows()
    through, resumed = trainer(model, rows), trainer(model, rows)
    for one in those(model):
        through.join(one)
    for _ in range(2):
        through.tick()
    checkpoint.save(tmp_path, through)
    found = checkpoint.load(tmp_path)
    assert found is not None
    resumed.load_state_dict(found.trainer)
    for name, seat in through.seats.items():
        expected, got = seat.optimizer.state_dict(), resumed.seats[name].optimizer.state_dict()
        assert expected.keys() == got.keys()
        assert all(torch.equal(value.cpu(), got[key].cpu()) for key, value in expected.items()), name
        assert all(value.dtype == got[key].dtype for key, value in expected.items())
    left, right = run(through, []), run(resumed, [])
    assert left.keys() == right.keys()
    for name, seat in left.items():
        assert torch.equal(weights_of(right[name]), weights_of(seat)), name
