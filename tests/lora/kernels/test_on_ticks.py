"""Whole ticks of a pack through the kernels, against the same ticks through `AdapterDelta`."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from engine import attention, candidate, causal_rows, largest_difference, linears, run, weights_of

from loraloom.evals.objective import objective_for
from loraloom.lora import dropout
from loraloom.lora.base import share_copy
from loraloom.lora.packed import PackedModel
from loraloom.records import Candidate
from loraloom.train.pack import PackTrainer
from loraloom.train.seat import Seat


def candidates(model: Any, **more: Any) -> list[Candidate]:
    """Of different batches, ranks, targets and windows."""
    first, *_, last = linears(model)
    return [
        candidate(
            "a",
            model,
            r=4,
            per_device_train_batch_size=1,
            gradient_accumulation_steps=2,
            targets=attention(model),
            bias="lora_only",
            **more,
        ),
        candidate(
            "b",
            model,
            r=9,
            per_device_train_batch_size=3,
            targets=(first, last),
            use_rslora=True,
            **more,
        ),
        candidate("c", model, r=1, per_device_train_batch_size=2, targets=(first,), **more),
    ]


def trained(
    model: Any, chosen: list[Candidate], device: torch.device, *, kernels: bool, **more: Any
) -> dict[str, Seat]:
    objective = objective_for("causal_lm", model)
    packed = PackedModel(share_copy(model), kernels=kernels)
    engine = PackTrainer(
        packed, causal_rows(12), objective, task="causal_lm", pad_id=tiny.PAD, workers=1, **more
    )
    return run(engine, chosen)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_uneven_candidates_train_as_through_the_lanes(dtype: torch.dtype, device: torch.device) -> None:
    model = tiny.model_of("llama", dtype).to(device)
    chosen = candidates(model, max_steps=2)
    ours, theirs = (trained(model, chosen, device, kernels=kernels) for kernels in (True, False))
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    for one in chosen:
        traces = ours[one.id].signals.trace, theirs[one.id].signals.trace
        assert traces[0].losses == pytest.approx(traces[1].losses, rel=tolerance)
        assert traces[0].norms == pytest.approx(traces[1].norms, rel=tolerance)
        if dtype == torch.float32:
            assert largest_difference(weights_of(ours[one.id]), weights_of(theirs[one.id])) < 1e-4


def test_dropout_and_checkpointing_are_those_of_the_lanes(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And alone as in a pack."""
    monkeypatch.setattr(dropout, "drawn_in_order", lambda device: False)
    model = tiny.model_of("gpt2", torch.float32).to(device)
    chosen = candidates(model, max_steps=1, lora_dropout=0.3)
    ours = trained(model, chosen, device, kernels=True)
    alone = trained(model, chosen[1:2], device, kernels=True, checkpointing=True)
    theirs = trained(model, chosen, device, kernels=False)
    for found, expected in ((ours, theirs), (alone, ours)):
        for name, seat in found.items():
            assert largest_difference(weights_of(seat), weights_of(expected[name])) < 1e-4
            assert seat.signals.trace.norms == pytest.approx(
                expected[name].signals.trace.norms, rel=1e-5
            )
