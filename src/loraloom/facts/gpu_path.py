"""What a GPU is used with, and why a GPU that is here is not: told by the functions that decide it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from loraloom.errors import first_line

DTYPES = ("float32", "bfloat16", "float16", "float64")
VISIBLE = "CUDA_VISIBLE_DEVICES"
PCI = Path("/sys/bus/pci/devices")
"""Where Linux lists its cards, drivers or not; a container sees them too."""
NVIDIA = "0x10de"
DISPLAY = "0x03"
"""Numbers of the vendor, and of the class of cards that compute or draw."""

Refusals = Mapping[str, Mapping[str, str | None]]
"""By part of the fast path, then by dtype of the base: why it is not used, in words that follow
"because"; None where it is."""


def refusals(kind: str) -> Refusals:
    """Of every part on a device of this kind."""
    import torch

    from loraloom.lora import kernels

    def with_kernels(kind: str, dtype: torch.dtype) -> str | None:
        # A pass repeats only where kernels read what changes from tables, and norms and gates are
        # kernels of the same room.
        return None if kernels.refusal(kind, dtype) is None else "they go with the Triton kernels"

    parts: Mapping[str, Callable[[str, torch.dtype], str | None]] = {
        "kernels": kernels.refusal,
        "cuda_graphs": with_kernels,
        "fused_base": with_kernels,
    }
    return {
        part: {name: refusal(kind, getattr(torch, name)) for name in DTYPES}
        for part, refusal in parts.items()
    }


def used_parts(found: Refusals, dtype: str) -> dict[str, dict[str, Any]]:
    """Whether each part is used with a base of this dtype, and why not: plain values,
    for run.json and `--json`."""
    return {
        part: {"used": by_dtype[dtype] is None, "reason": by_dtype[dtype]}
        for part, by_dtype in found.items()
    }


def name_of_gpu(place: int) -> str:
    """What `CUDA_VISIBLE_DEVICES` calls the GPU that torch sees in that place."""
    named = os.environ.get(VISIBLE, "").split(",")
    return named[place].strip() if place < len(named) else str(place)


def cuda_is_available() -> bool:
    """Whether torch can use a CUDA device. What it would print where it cannot, `why_unused` says."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.cuda.is_available()


def why_unused() -> str:
    """Why an NVIDIA GPU that is here, or that was asked for by `CUDA_VISIBLE_DEVICES`, cannot be used.
    Empty where there is none, or where it was hidden on purpose."""
    import torch

    visible = os.environ.get(VISIBLE)
    if visible is not None and (not visible.strip() or visible.strip().startswith("-")):
        return ""
    if torch.version.cuda is None:
        named = torch.version.hip is None and has_nvidia_card()
        return (
            f"torch {torch.__version__} was built without CUDA: install one that has it (pytorch.org)"
            if named
            else ""
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        said = first_line(error).split(". ")[0].rstrip(".")
        no_driver = "found no nvidia driver" in said.lower()
        return said if visible or has_nvidia_card() or not no_driver else ""
    return ""


def has_nvidia_card() -> bool:
    """Whether the machine has one, by what Linux says; False elsewhere."""
    return any(
        _says(card / "vendor", NVIDIA) and _says(card / "class", DISPLAY) for card in PCI.glob("*")
    )


def _says(file: Path, begins: str) -> bool:
    try:
        return file.read_text().startswith(begins)
    except OSError:
        return False
