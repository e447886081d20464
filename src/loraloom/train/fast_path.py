"""What of a GPU's fast path turned out not to work while a pack was there: plain torch
does the same, more slowly."""

from __future__ import annotations

from collections.abc import Iterator

from loraloom.lora.kernels import refusal
from loraloom.lora.packed import PackedModel
from loraloom.train.cuda_graph import PassGraphs


def unused(packed: PackedModel, graphs: PassGraphs | None) -> Iterator[str]:
    """One sentence for each cause. What was known before any of it was tried, `plan` has said."""
    if packed.device.type != "cuda":
        return
    if packed.kernels_refusal is not None and refusal(packed.device, packed.base_dtype) is None:
        yield f"Triton kernels are not used: {packed.kernels_refusal}; plain torch does the same"
    for module, reason in packed.fused.refused.items():
        yield f"{module} of the base runs in plain torch: {reason}"
    if graphs is None:
        return
    if graphs.stopped is not None:
        yield f"no more CUDA graphs are recorded: {graphs.stopped}"
    for reason in dict.fromkeys(graphs.refused.values()):
        yield f"some passes are not recorded as CUDA graphs: {reason}"
