"""How often the host may wait for a GPU, in plain torch. `test_on_kernels.py` has what
a tick costs there by the kernels."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import tiny
import torch
from engine import candidate, rows_for
from stand_in import StandIn
from ticks import KINDS, engine_of, join, tick
from torch import nn

from loraloom.evals import cross_entropy
from loraloom.lora.state import peft_state

MANY = 8


def ticks(device: StandIn, family: str, kind: str, **more: Any) -> None:
    """The first three of a pack wait no more than they may."""
    engine = engine_of(family, **more)
    join(engine, family, MANY, KINDS[kind])
    for _ in range(3):
        tick(device, engine, family)


@pytest.mark.parametrize("kind", KINDS)
def test_the_host_waits_for_the_device_once_a_tick(kind: str, cuda: StandIn) -> None:
    ticks(cuda, "llama", kind)


@pytest.mark.parametrize("family", ["bert", "t5"])
def test_the_host_waits_once_a_tick_in_other_families_too(family: str, cuda: StandIn) -> None:
    ticks(cuda, family, "alike")


def test_the_host_waits_once_a_tick_with_checkpointing_too(cuda: StandIn) -> None:
    ticks(cuda, "llama", "dropout of some", checkpointing=True)


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_scoring_waits_as_often_for_many_as_for_one(family: str, cuda: StandIn) -> None:
    rows = rows_for(family, count=6, longest=5)
    found: list[int] = []
    for count in (1, MANY):
        engine = engine_of(family, validation=rows)
        join(engine, family, count, KINDS["alike"])
        cuda.waits.clear()
        engine.evaluate(list(engine.seats))
        found.append(Counter({line: n for line, n in cuda.waits.items() if " in " not in line}).total())
    assert found[0] == found[1] <= 2, cuda.waits  # numbers, and a classifier's choices


def test_a_candidate_joins_and_is_looked_at_without_a_wait_for_each_layer(cuda: StandIn) -> None:
    engine = engine_of("llama")
    layers = len([path for path in engine.packed.layers() if path.endswith("_proj")])
    (one,) = [candidate("one", engine.packed.model)]
    assert layers > 10
    looks = {
        "join": lambda: engine.join(one),
        "tick": engine.tick,
        "largest outputs": lambda: engine.divergence.bad_layer(engine.seats["one"]),
        "modules": lambda: engine.gauge and engine.gauge.measure_modules(engine.seats["one"]),
        "saving": lambda: peft_state(engine.seats["one"].adapter.tensors(), engine.packed.model),
    }
    for name, look in looks.items():
        cuda.waits.clear()
        look()
        assert cuda.waits.total() <= 4, (name, cuda.waits)


@pytest.mark.usefixtures("without_triton")
@pytest.mark.parametrize("cap", [None, 2.0], ids=["plain", "capped"])
def test_a_head_is_not_read_anew_for_every_few_rows(
    cap: float | None, cuda: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    # one row of logits, as those of a large vocabulary
    monkeypatch.setattr(cross_entropy, "CHUNK_BYTES", 4 * tiny.VOCAB)
    head = nn.Linear(4, tiny.VOCAB, bias=False).requires_grad_(False).to("cuda")
    hidden, targets = torch.randn(40, 4).to("cuda").requires_grad_(), torch.arange(40).to("cuda")
    cuda.launches.clear()
    losses, _ = cross_entropy.losses_under_head(hidden, head, cap, targets)
    assert losses.shape == (40,) and 0 < cuda.launches.total() < 40


def test_a_candidate_s_peak_of_memory_is_its_own(cuda: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    peak = [0]
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda *_: peak[0])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda *_: peak.__setitem__(0, 1))
    engine = engine_of("bert")
    first, late = (
        candidate(name, engine.packed.model, heads=("classifier",), max_steps=9)
        for name in ("first", "late")
    )
    engine.join(first)
    peak[0] = 100
    engine.tick()
    engine.join(late)
    engine.tick()
    assert engine.seats["first"].peak_bytes == 100 and engine.seats["late"].peak_bytes < 100
