"""Which layer is to blame for numbers that went bad."""

from __future__ import annotations

import math

import torch
from torch import nn

from loraloom.train.divergence import GROWTH, first_bad, first_grown, largest_outputs


def test_the_first_layer_to_go_bad_is_named_in_the_order_of_running() -> None:
    first, second, third = nn.Identity(), nn.Linear(2, 2), nn.Identity()
    with torch.no_grad():
        second.weight.fill_(float("inf"))
    layers = {"third": third, "second": second, "first": first}
    outputs = largest_outputs(layers, lambda: third(second(first(torch.ones(1, 2)))))
    assert list(outputs) == ["first", "second", "third"] and outputs["first"] == 1.0
    assert first_bad(outputs) == "second" and first_bad({"first": 1.0}) is None
    assert first_bad({"a": 1.0, "b": math.nan}) == "b"
    assert not second._forward_hooks


def test_the_first_layer_to_run_away_is_named_against_the_base() -> None:
    base = {"a": 1.0, "b": 2.0, "c": 1.0}
    assert first_grown({"a": GROWTH, "b": 2 * GROWTH + 1, "c": 1e9}, base) == "b"
    assert first_grown({"a": 1.0, "unknown": 1e9}, base) is None
