"""A trainer on disk: tensors in safetensors, the rest in JSON, and nothing that could run code when it is read.

A checkpoint may be taken between any two ticks, also in the middle of an accumulation window. The JSON file names the
tensor file and is put in place last, in one step: whoever reads sees the old checkpoint or the new one, never half.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from loraloom.errors import RunError, StoreError
from loraloom.train.pack import PackTrainer

STATE = "trainer.json"
VERSION = 1


def save(folder: Path, trainer: PackTrainer) -> Path:
    """Write the trainer's state into `folder` (made if needed), in place of the one that was there.

    Raises:
        StoreError: the disk refused; the checkpoint that was there is still whole.
    """
    state = trainer.state_dict()
    tensors: dict[str, Tensor] = {name: tensor.contiguous() for name, tensor in state.pop("tensors").items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        older = sorted(folder.glob("trainer-*.safetensors"))
        number = 1 + max((int(path.stem.rpartition("-")[2]) for path in older), default=0)
        file = folder / f"trainer-{number}.safetensors"
        _put(file, lambda partial: save_file(tensors, partial))
        document = json.dumps({"version": VERSION, "tensors": file.name, **state})
        _put(folder / STATE, lambda partial: partial.write_text(document, encoding="utf-8"))
        for path in older:
            path.unlink()
    except (OSError, SafetensorError) as fault:
        raise StoreError(f"cannot write a checkpoint into {folder}", got=str(fault), next="free some disk space") from fault
    return folder


def load(folder: Path) -> dict[str, Any]:
    """What `save` wrote, for `PackTrainer.load_state_dict`.

    Raises:
        RunError: there is no checkpoint, or not one that this version reads.
    """
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        if state["version"] != VERSION:
            raise RunError(f"the checkpoint in {folder} has version {state['version']}", need=str(VERSION))
        state["tensors"] = load_file(folder / state["tensors"])
    except (OSError, ValueError, KeyError, SafetensorError) as fault:
        raise RunError(f"no checkpoint can be read from {folder}", got=str(fault), next="start the run anew") from fault
    return state


def _put(target: Path, write: Callable[[Path], object]) -> None:
    """Write beside the target, to the disk, then rename."""
    partial = target.with_name(f"{target.name}.partial")
    write(partial)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(target)
