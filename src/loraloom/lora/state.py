"""Adapters on disk, in PEFT's own format, and the proof that what was saved is what was trained.

`save_adapter` writes adapter_config.json and adapter_model.safetensors; `verify_adapter` loads them with PEFT into a
module tree that has never seen our layers and compares logits. Only then does an adapter count as saved.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from loraloom.errors import ModelError, VerificationError
from loraloom.lora.arena import BIAS_NAME, Entry
from loraloom.lora.base import Base, quiet_transformers, share_copy
from loraloom.lora.packed import AdapterWeights, PackedModel, Routing, Segment
from loraloom.records import AdapterSpec

PEFT_TASKS = {"causal_lm": "CAUSAL_LM", "seq_cls": "SEQ_CLS", "seq2seq_lm": "SEQ_2_SEQ_LM"}
PREFIX = "base_model.model."


def compact_targets(targets: Sequence[str], all_paths: Iterable[str]) -> list[str]:
    """The shortest list that PEFT resolves to exactly `targets`: last names where they pick nothing else, else paths.

    Servers match adapters by last names (`q_proj`), so these are preferred.
    """
    chosen = set(targets)
    names = sorted({path.rpartition(".")[2] for path in chosen})
    reached = {path for path in all_paths if path.rpartition(".")[2] in names}
    return names if reached == chosen else sorted(chosen)


def peft_config(spec: AdapterSpec, base: Base) -> Any:
    """The `peft.LoraConfig` that describes an adapter of ours."""
    from peft import LoraConfig

    leaves = [name for name, module in base.model.named_modules() if not list(module.children())]
    return LoraConfig(
        r=spec.r,
        lora_alpha=spec.lora_alpha,  # pyright: ignore[reportArgumentType]
        lora_dropout=spec.lora_dropout,
        target_modules=compact_targets(spec.target_modules, leaves),
        use_rslora=spec.use_rslora,
        bias=spec.bias,
        init_lora_weights=spec.init_lora_weights,  # pyright: ignore[reportArgumentType]
        rank_pattern=dict(spec.rank_pattern),
        alpha_pattern=dict(spec.alpha_pattern),
        modules_to_save=[path.rpartition(".")[2] for path in spec.modules_to_save] or None,
        task_type=PEFT_TASKS[base.task],
        base_model_name_or_path=base.name_or_path,
        inference_mode=True,
        fan_in_fan_out=any(type(base.model.get_submodule(path)).__name__ == "Conv1D" for path in spec.target_modules),
    )


def peft_state(tensors: Iterable[tuple[Entry, Tensor]], base: nn.Module) -> dict[str, Tensor]:
    """Our tensors under PEFT's names, in float32 on the CPU."""
    state: dict[str, Tensor] = {}
    for entry, tensor in tensors:
        value = tensor.detach()
        if entry.name == BIAS_NAME:
            value = value + _bias(base, entry.path).to(value)
        state[f"{PREFIX}{entry.key}"] = value.to("cpu", torch.float32).contiguous().clone()
    return state


def _bias(base: nn.Module, path: str) -> Tensor:
    bias = base.get_submodule(path).bias
    assert isinstance(bias, Tensor)
    return bias


def save_adapter(folder: Path, tensors: Iterable[tuple[Entry, Tensor]], spec: AdapterSpec, base: Base) -> Path:
    """Write an adapter and the tokenizer into `folder` (made if needed), each file whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    state = peft_state(tensors, base.model)
    partial = folder / "adapter_model.safetensors.partial"
    save_file(state, partial, metadata={"format": "pt"})
    with open(partial, "rb") as file:
        os.fsync(file.fileno())
    peft_config(spec, base).save_pretrained(str(folder))
    partial.rename(folder / "adapter_model.safetensors")
    base.tokenizer.save_pretrained(str(folder))
    return folder


@torch.no_grad()
def read_adapter(folder: Path, adapter: AdapterWeights, base: nn.Module) -> None:
    """Fill an adapter of the same shape from a folder that `save_adapter` wrote.

    Raises:
        ModelError: the file lacks one of its tensors, or has it in another shape.
    """
    state = load_file(folder / "adapter_model.safetensors")
    for entry, tensor in adapter.tensors():
        stored = state.get(f"{PREFIX}{entry.key}")
        if stored is None or stored.shape != tensor.shape:
            got = "nothing" if stored is None else f"shape {tuple(stored.shape)}"
            raise ModelError(f"`{entry.key}` of the adapter in {folder} is not as it was saved", got=got, need=str(entry.shape))
        value = stored.to(tensor)
        tensor.copy_(value - _bias(base, entry.path).to(tensor) if entry.name == BIAS_NAME else value)
    adapter.refresh()


@torch.no_grad()
def logits_of(model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """Logits of a model for a batch, as float32 on the CPU."""
    result = model(**inputs).logits
    return result.to("cpu", torch.float32)


def load_peft(folder: Path, model: nn.Module) -> Any:
    """A `peft.PeftModel` of an adapter folder over `model` (which PEFT changes in place), in eval mode."""
    from peft import PeftModel

    with quiet_transformers():
        return PeftModel.from_pretrained(model, str(folder)).eval()  # pyright: ignore[reportArgumentType]


@torch.no_grad()
def verify_adapter(
    folder: Path, packed: PackedModel, slot: str, base: Base, inputs: Mapping[str, Tensor], *, tolerance: float = 1e-4
) -> float:
    """Load a saved adapter with PEFT into a fresh module tree and compare its logits with the trained ones.

    Args:
        inputs: a small batch for the model's forward.
        tolerance: largest allowed difference, relative to the largest logit.

    Returns:
        The largest difference relative to the largest logit.

    Raises:
        VerificationError: the logits differ, or are not finite.
    """
    rows = int(inputs["input_ids"].shape[0])
    with packed.route(Routing((Segment(slot, 0, rows),))) as model:
        trained = logits_of(model, inputs)
    loaded = logits_of(load_peft(folder, share_copy(base.model, own_biases=True)), inputs)
    largest = float(trained.abs().max())
    difference = float((trained - loaded).abs().max()) / max(largest, 1e-12)
    if not difference <= tolerance:
        raise VerificationError(
            f"the adapter saved in {folder.name} is not the one that was trained: logits differ by {difference:.2g}",
            need=f"at most {tolerance:.2g} relative to the largest logit, {largest:.3g}",
            next="keep the run folder and report this; do not ship the adapter",
        )
    return difference
