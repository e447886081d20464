"""Principal components of what layers read, from rows that come in parts."""

from __future__ import annotations

import pytest
import torch

from loraloom.adapters.input_variance import RunningComponents


@pytest.mark.parametrize("parts", [1, 4])
def test_parts_give_the_components_of_the_whole(parts: int) -> None:
    draw = torch.Generator().manual_seed(0)
    few_KD = torch.randn(5, 12, generator=draw)
    x_ND = torch.randn(60, 5, generator=draw) @ few_KD + 3.0
    running = RunningComponents(most=5)

    for part_ND in x_ND.tensor_split(parts):
        running.add(part_ND)

    variance_S = torch.linalg.svdvals(x_ND - x_ND.mean(0)).square()
    expected = (variance_S / variance_S.sum())[:5]
    assert running.explained() == pytest.approx(expected.tolist(), abs=1e-4)
    assert sum(running.explained()) == pytest.approx(1.0, abs=1e-4)


def test_rows_that_do_not_differ_explain_nothing() -> None:
    running = RunningComponents(most=3)
    running.add(torch.ones(4, 6))
    running.add(torch.ones(0, 6))
    assert running.explained() == []
