"""Pages of weight files are given back after reading, and what was changed in them stays."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from loraloom.lora import loading_memory
from loraloom.lora.loading_memory import give_back_pages

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux for its maps")
NUMBERS = 4 * 2**20


def mapped(folder: Path) -> tuple[nn.Module, dict[str, torch.Tensor], Path]:
    """A model over one tensor of a file whose other tensor is large; both have been read."""
    file = folder / "model.safetensors"
    save_file({"kept": torch.arange(8.0), "read": torch.ones(NUMBERS)}, file)
    tensors = load_file(file)
    assert tensors["read"].sum() == NUMBERS
    model = nn.Module()
    model.register_parameter("kept", nn.Parameter(tensors["kept"], requires_grad=False))
    return model, tensors, file


def resident(file: Path) -> int:
    """Bytes of this file that are in this process's memory."""
    found, own = 0, False
    for line in loading_memory.MAPS.read_text().splitlines():
        if loading_memory.HEADER.match(line):
            own = line.endswith(str(file))
        elif own and line.startswith("Rss:"):
            found += 1024 * int(line.split()[1])
    return found


def test_pages_that_were_read_leave_memory_and_can_be_read_again(tmp_path: Path) -> None:
    model, tensors, file = mapped(tmp_path)
    if not resident(file):
        pytest.skip("this safetensors does not map its files")
    assert resident(file) > 2 * NUMBERS
    give_back_pages(model)
    assert resident(file) < NUMBERS
    assert torch.equal(model.kept, torch.arange(8.0)) and tensors["read"].sum() == NUMBERS  # type: ignore[arg-type]


def test_a_file_in_which_something_was_changed_is_left_alone(tmp_path: Path) -> None:
    model, tensors, file = mapped(tmp_path)
    before = resident(file)
    tensors["read"][5] = 7.0
    give_back_pages(model)
    assert resident(file) >= before and tensors["read"][5] == 7.0


def test_where_there_are_no_maps_nothing_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tensors, _ = mapped(tmp_path)
    monkeypatch.setattr(loading_memory, "MAPS", tmp_path / "none")
    give_back_pages(model)
    assert tensors["read"].sum() == NUMBERS
