"""Candidates that wait in files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from loraloom.train.shelf import Shelf

PLAIN: dict[str, Any] = {"step": 3, "micro": 0}


def put(shelf: Shelf, value: float) -> str:
    shelf.put("t001", PLAIN, {"weights": torch.tensor([value])})
    return shelf.files["t001"]


@pytest.mark.parametrize("generation", [1, 7])
def test_a_worker_of_an_earlier_driver_writes_over_nothing(tmp_path: Path, generation: int) -> None:
    """A driver that goes on from a checkpoint counts generations from there, as the one before did."""
    mine, stale = (Shelf(tmp_path, generations={"t001": generation}) for _ in range(2))
    file = put(mine, 1.0)
    assert put(stale, 2.0) != file
    assert mine.read_file(file)[1]["weights"].item() == 1.0
    assert put(mine, 3.0) == file, "one worker writes the same moment to the same file"
