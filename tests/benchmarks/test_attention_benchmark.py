"""The attention benchmark compares ways that give the same numbers, and its committed
result says what it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from scripts import load

bench: Any = load("attention")
RESULT = json.loads((Path(bench.__file__).parent / "result.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("shape", bench.SHAPES)
def test_all_ways_give_the_same_output_and_gradients(shape: tuple[int, int, int]) -> None:
    q, k, v, grad = bench.inputs(*shape, 200, torch.float64)
    found = {
        name: (way(), torch.autograd.grad(way(), (q, k, v), grad))
        for name, way in bench.ways(q, k, v).items()
    }
    output, gradients = found.pop("fused")
    for name, (own, own_gradients) in found.items():
        for left, right in zip((own, *own_gradients), (output, *gradients), strict=True):
            assert torch.allclose(left, right, atol=1e-10), name


def test_the_committed_result_has_every_shape_and_marks_what_the_engine_takes() -> None:
    assert len(RESULT["shapes"]) == len(bench.SHAPES) * len(bench.LENGTHS) * len(bench.DTYPES)
    for row in RESULT["shapes"]:
        q, k, _, _ = bench.inputs(
            row["heads"], row["key_heads"], row["width"], row["length"], getattr(torch, row["dtype"])
        )
        assert row["taken"] == bench.taken(q, k)
    assert bench.table(RESULT).count("*") == len(RESULT["shapes"])


def test_nowhere_does_the_engine_take_a_slower_way_than_the_fused_kernel() -> None:
    for row in RESULT["shapes"]:
        assert row["milliseconds"][row["taken"]] <= row["milliseconds"]["fused"], row
