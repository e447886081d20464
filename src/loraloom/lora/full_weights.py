"""The full weights of a base that is held in few bits, read from its files one layer at a time."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import safe_open
from torch import Tensor

from loraloom.errors import ModelError

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"


class FullWeights:
    """Where the weights of a base lie, by name.

    Args:
        name_or_path: a folder, or a name on the hub whose files are on this machine.
    """

    def __init__(self, name_or_path: str, revision: str | None) -> None:
        self._name, self._revision = name_or_path, revision

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def of(self, path: str, shape: tuple[int, int]) -> Tensor:
        """The weight [O, D] of the layer at a path, in float32.

        Raises:
            ModelError: the files have no tensor of this name and shape.
        """
        key = f"{path}.weight"
        place = next((name for name in self._places if is_same(key, name)), None)
        if place is not None:
            with safe_open(self._places[place], framework="pt") as file:  # pyright: ignore[reportUnknownVariableType]
                weight: Tensor = file.get_tensor(place)
            for candidate in (weight, weight.T):  # Conv1D keeps it transposed
                if tuple(candidate.shape) == shape:
                    return candidate.to(torch.float32)
        raise ModelError(
            f"the full weight of `{path}` is not to be found in the files of the base",
            where=self._name,
            need=f"a tensor {key} of {shape[0]} x {shape[1]} in {WHOLE} or its parts",
            next="leave `adapter.init_lora_weights` out",
        )

    @cached_property
    def _places(self) -> dict[str, Path]:
        """The file of each tensor."""
        index = self._file(INDEX)
        if index is not None:
            parts: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            return {name: index.parent / part for name, part in parts.items()}
        whole = self._file(WHOLE)
        if whole is None:
            return {}
        with safe_open(whole, framework="pt") as file:  # pyright: ignore[reportUnknownVariableType]
            return dict.fromkeys(file.keys(), whole)

    def _file(self, name: str) -> Path | None:
        from transformers.utils.hub import cached_file

        missing: dict[str, Any] = {"_raise_exceptions_for_missing_entries": False}
        found = cached_file(self._name, name, revision=self._revision, **missing)
        return None if found is None else Path(found)


def is_same(name: str, stored: str) -> bool:
    """Whether a model's name is a checkpoint's, which may have been saved without the task's head."""
    return name == stored or name.endswith(f".{stored}") or (bool(name) and stored.endswith(f".{name}"))
