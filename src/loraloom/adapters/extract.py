"""An adapter out of two models: what a model that was trained whole differs by from its base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from loraloom.adapters.base_files import BaseFiles
from loraloom.adapters.factors import approximated
from loraloom.adapters.form import Factor, Form
from loraloom.adapters.shards import Stored
from loraloom.adapters.verify import task_of
from loraloom.errors import ModelError, RequestError
from loraloom.lora.state import PEFT_TASKS, compact_targets


@dataclass(frozen=True)
class Extracted:
    """The adapter, and what it does not hold.

    Attributes:
        error: |update - B A| / |update| over all of its layers.
        left_out: tensors that differ and take no LoRA here: norms, biases, embeddings, heads.
    """

    form: Form
    rank: int
    error: float
    left_out: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The document of `adapter extract --json`, without the folder."""
        return {
            "rank": self.rank,
            "layers": len(self.form.factors),
            "error": self.error,
            "left_out": list(self.left_out),
        }


def extract(base: Path, tuned: Path, rank: int, base_name: str) -> Extracted:
    """The best adapter of a rank that makes `tuned` of `base`.

    Args:
        base_name: what the adapter's config calls its base.

    Raises:
        ModelError: the two are not of one shape, or do not differ.
        RequestError: the rank is below 1.
    """
    if rank < 1:
        raise RequestError(f"--rank is {rank}", need="at least 1", next="--rank 16")
    nothing = Form(tuned, {"base_model_name_or_path": base_name}, {}, {}, {})
    before, after = BaseFiles(base, nothing), BaseFiles(tuned, nothing)
    linears = _linears(before)
    factors: dict[str, Factor] = {}
    wrong = every = 0.0
    for path, transposed in linears.items():
        difference = _difference(before, after, f"{path}.weight")
        if difference is None:
            continue
        delta_OD = difference.T if transposed else difference
        a, b = approximated(delta_OD, min(rank, *delta_OD.shape))
        factors[path] = Factor(path, a, b, 1.0)
        wrong += float((delta_OD - b @ a).square().sum())
        every += float(delta_OD.square().sum())
    if not factors:
        raise ModelError(
            "no linear layer differs between the two models",
            where=str(tuned),
            next="compare --base and --tuned",
        )
    parts = before.shapes.keys() - {f"{path}.weight" for path in linears}
    left_out = tuple(name for name in sorted(parts) if _differs(before, after, name))
    config = _config(before, base_name, sorted(factors), rank)
    form = Form(tuned, config, factors, {}, {})
    return Extracted(form, rank, (wrong / every) ** 0.5, left_out)


def _linears(files: BaseFiles) -> dict[str, bool]:
    """Paths of the linear layers but the output layer, and whether each is kept as in x out."""
    output = files.model.get_output_embeddings()
    return {
        path: type(module).__name__ == "Conv1D"
        for path, module in files.model.named_modules()
        if (type(module) is nn.Linear or type(module).__name__ == "Conv1D") and module is not output
    }


def _difference(before: BaseFiles, after: BaseFiles, name: str) -> torch.Tensor | None:
    """What a weight differs by in float32; None where it does not.

    Raises:
        ModelError: one of the models lacks it, or has it in another shape.
    """
    one, other = before.stored(name), after.stored(name)
    if one is None or other is None or one.shape != other.shape:
        shapes = [None if it is None else " x ".join(map(str, it.shape)) for it in (one, other)]
        raise ModelError(
            f"`{name}` is not the same in both models",
            got=f"{shapes[0] or 'nothing'} in the base, {shapes[1] or 'nothing'} in the tuned one",
            need="a model that was trained from this base",
            next="--base BASE",
        )
    found = _read(other) - _read(one)
    return found if found.any() else None


def _differs(before: BaseFiles, after: BaseFiles, name: str) -> bool:
    """Whether a tensor is another one: in numbers, in shape, or not there in one of the models."""
    one, other = before.stored(name), after.stored(name)
    if one is None or other is None:
        return one is not other
    return one.shape != other.shape or bool((_read(one) != _read(other)).any())


def _read(stored: Stored) -> torch.Tensor:
    return stored.read().to(torch.float32)


def _config(files: BaseFiles, name: str, targets: Sequence[str], rank: int) -> dict[str, Any]:
    """adapter_config.json of the new adapter."""
    leaves = [path for path, module in files.model.named_modules() if not list(module.children())]
    return {
        "peft_type": "LORA",
        "task_type": PEFT_TASKS[task_of(files)],
        "base_model_name_or_path": name,
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "target_modules": compact_targets(targets, leaves),
        "bias": "none",
        "fan_in_fan_out": any(_linears(files)[path] for path in targets),
        "inference_mode": True,
    }
