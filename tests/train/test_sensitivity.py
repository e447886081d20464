"""AdaLoRA's score of an adapter's directions, against the paper's formula written out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from loraloom.lora.arena import Entry
from loraloom.train.sensitivity import BETA, Sensitivity
from loraloom.train.signals import Gauge

A, B = Entry("q", "lora_A.weight", "lora_A", (2, 3)), Entry("q", "lora_B.weight", "lora_B", (4, 2))


def seat_of(weights: torch.Tensor, grads: torch.Tensor) -> Any:
    def tensors(flat: torch.Tensor) -> list[tuple[Entry, torch.Tensor]]:
        return [(A, flat[:6].view(2, 3)), (B, flat[6:].view(4, 2))]

    arena = SimpleNamespace(weights=weights, grads=grads)
    return SimpleNamespace(adapter=SimpleNamespace(arena=arena, tensors=tensors))


def test_a_direction_scores_its_row_of_a_and_its_column_of_b(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Gauge, "stepped", lambda *asked: None)
    gauge = Sensitivity(SimpleNamespace(), "accuracy")  # pyright: ignore[reportArgumentType]
    draw = torch.Generator().manual_seed(1)
    steps = [torch.randn(2, 14, generator=draw) for _ in range(5)]
    assert gauge.scores(seat_of(*steps[0])) == {}

    for weights, grads in steps:
        gauge.stepped(seat_of(weights, grads), 1.0, 1.0, 1e-3)

    smoothed = uncertainty = torch.zeros(14)
    for weights, grads in steps:
        sensitivity = (weights * grads).abs()
        smoothed = BETA * smoothed + (1 - BETA) * sensitivity
        uncertainty = BETA * uncertainty + (1 - BETA) * (sensitivity - smoothed).abs()
    score = smoothed * uncertainty
    of_a, of_b = score[:6].view(2, 3).mean(1), score[6:].view(4, 2).mean(0)
    assert gauge.scores(seat_of(*steps[0]))["q"] == pytest.approx((of_a + of_b).tolist(), rel=1e-4)
