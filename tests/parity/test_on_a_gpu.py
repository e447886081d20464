"""What has to hold on a GPU, in every kernel that runs there: losses as on the CPU, a
pack as each candidate alone."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from engine import candidate, largest_difference, rows_for, trainer, weights_of

from loraloom.records import Candidate
from loraloom.train.pack import PackTrainer

pytestmark = pytest.mark.gpu
FAMILIES = ("llama", "bert", "t5")
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rank": {"r": 3, "lora_alpha": 5},
    "rows": {"per_device_train_batch_size": 4},
    "windows": {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2},
}
STEPS = 4


@pytest.fixture(autouse=True)
def exact_products() -> Any:
    """float32 is to mean float32: no TF32."""
    kept = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32 = kept


def engine_on(device: str, family: str, dtype: torch.dtype) -> PackTrainer:
    chosen, rows = tiny.FAMILIES[family], rows_for(family)
    model = tiny.model_of(family, dtype).to(device)
    return trainer(model, rows, chosen.task, validation=rows[:5], fresh_modules=chosen.heads)


def made(engine: PackTrainer, family: str, **more: Any) -> list[Candidate]:
    heads = tiny.FAMILIES[family].heads
    return [
        candidate(name, engine.packed.model, heads=heads, max_steps=STEPS, seed=number, **values, **more)
        for number, (name, values) in enumerate(KINDS.items())
    ]


def losses(
    engine: PackTrainer, candidates: list[Candidate]
) -> tuple[dict[str, list[float]], dict[str, torch.Tensor]]:
    """Losses by step and last weights of each candidate, all trained to their ends."""
    told: dict[str, list[float]] = {one.id: [] for one in candidates}
    weights: dict[str, torch.Tensor] = {}
    for one in candidates:
        engine.join(one)
    while engine.seats:
        for event in engine.tick():
            if event.kind == "step" and event.trial is not None:
                told[event.trial].append(event.data["loss"])
        for name in engine.finished():
            weights[name] = weights_of(engine.leave(name)).cpu()
    return told, weights


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_in_float32_are_those_of_the_cpu(family: str) -> None:
    here, there = (engine_on(device, family, torch.float32) for device in ("cpu", "cuda"))
    (on_cpu, _), (on_gpu, _) = (losses(engine, made(engine, family)) for engine in (here, there))
    for name, values in on_cpu.items():
        assert len(values) == STEPS and on_gpu[name] == pytest.approx(values, rel=1e-3), name


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_pack_of_four_is_each_of_them_alone(family: str, dropout: float) -> None:
    together = engine_on("cuda", family, torch.float32)
    candidates = made(together, family, lora_dropout=dropout)
    told, weights = losses(together, candidates)
    for one in candidates:
        own_told, own_weights = losses(engine_on("cuda", family, torch.float32), [one])
        assert told[one.id] == pytest.approx(own_told[one.id], rel=1e-3), one.id
        assert largest_difference(weights[one.id], own_weights[one.id]) < 1e-2, one.id


def test_in_bfloat16_losses_fall_as_on_the_cpu() -> None:
    here, there = (engine_on(device, "llama", torch.bfloat16) for device in ("cpu", "cuda"))
    (on_cpu, _), (on_gpu, _) = (losses(engine, made(engine, "llama")) for engine in (here, there))
    for name, values in on_cpu.items():
        assert on_gpu[name] == pytest.approx(values, rel=0.05), name


def test_a_candidate_gone_bad_leaves_its_neighbours_alone() -> None:
    """In the kernels, which take all candidates in one launch."""
    alone, together = (engine_on("cuda", "llama", torch.float32) for _ in range(2))
    healthy, wild = made(alone, "llama")[:2]
    _, own = losses(alone, [healthy])
    for one in (healthy, wild):
        together.join(one)
    bad = together.seats[wild.id].adapter
    bad.arena.weights.fill_(torch.nan)
    bad.refresh()
    while healthy.id not in together.finished():
        together.tick()
    assert wild.id in together.diverged()
    assert largest_difference(weights_of(together.seats[healthy.id]).cpu(), own[healthy.id]) < 1e-3
