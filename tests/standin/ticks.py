"""Ticks of packs on the stand-in device, and what they cost there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import tiny
import torch
from engine import candidate, linears, rows_for, trainer
from stand_in import StandIn

from loraloom.train.pack import PackTrainer

OURS = 1
"""Waits of our own a tick: losses, norms and what else the host has to know come in one copy."""
THEIRS = {"llama": 1, "bert": 1, "t5": 2}
"""Waits of transformers a tick: a look at the mask of each attention, before anything is queued."""

Kind = Callable[[int, Any], dict[str, Any]]
"""In what the nth candidate differs from the others, on a model."""

KINDS: dict[str, Kind] = {
    "alike": lambda n, model: {},
    "scales": lambda n, model: {"lora_alpha": 1 + n},
    "ranks": lambda n, model: {"r": 1 + n % 3},
    "targets": lambda n, model: {"targets": linears(model)[2:4]} if n % 2 else {},
    "batches": lambda n, model: {"per_device_train_batch_size": 1 + 2 * (n % 2)},
    "dropout": lambda n, model: {"lora_dropout": 0.1},
    "dropout of some": lambda n, model: {"lora_dropout": 0.1 * (n % 2)},
    "biases": lambda n, model: {"bias": "lora_only"} if n % 2 else {},
    "window": lambda n, model: {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 1},
    "noise": lambda n, model: {"neftune_noise_alpha": 5.0},
    "dora": lambda n, model: {"use_dora": True},
}


def engine_of(family: str, dtype: torch.dtype = torch.float64, **more: Any) -> PackTrainer:
    """A trainer whose rows are alike in length: a tick is one pass. The kernels know no
    float64: plain torch does all then."""
    chosen = tiny.FAMILIES[family]
    rows = rows_for(family, count=48, longest=4 if family == "t5" else 5)
    model = tiny.model_of(family, dtype).to("cuda")
    return trainer(model, rows, chosen.task, fresh_modules=chosen.heads, **more)


def join(engine: PackTrainer, family: str, count: int, kind: Kind) -> None:
    model, heads = engine.packed.model, tiny.FAMILIES[family].heads
    made = [
        candidate(f"c{n}", model, heads=heads, seed=n, **{"max_steps": 9, **kind(n, model)})
        for n in range(count)
    ]
    for one in made:
        engine.join(one)


def tick(device: StandIn, engine: PackTrainer, family: str) -> Counter[str]:
    """Launches of a tick by line, which was seen to wait no more than it may."""
    device.waits.clear()
    device.launches.clear()
    engine.tick()
    theirs = Counter({line: n for line, n in device.waits.items() if " in " in line})
    assert theirs.total() <= THEIRS[family], theirs
    assert device.waits.total() - theirs.total() <= OURS, device.waits
    return Counter(device.launches)
