"""Triton kernels for CUDA devices: what a pack does for each candidate, done for all of
them in one launch.

Each has a readable twin in plain torch, which is its definition, and which is used wherever the kernels
cannot be. Triton is imported by the files that hold kernels, and by those only when they are used.

Environment: with TRITON_INTERPRET=1, set before Triton is imported, kernels are run on a CPU by Triton's
interpreter. That is how they are tested; it is thousands of times slower.
"""

from __future__ import annotations

import importlib
import os
from functools import cache

import torch

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
CAPABILITY = (8, 0)
"""Ampere: the first with bfloat16 in its tensor cores."""


def refusal(device: torch.device | str, dtype: torch.dtype) -> str | None:
    """Why the kernels cannot be used on a device, in words that follow "because"; None if they can.

    Args:
        dtype: in which the base computes.
    """
    device = torch.device(device)
    if dtype not in DTYPES:
        return f"they do not know {str(dtype).removeprefix('torch.')}"
    if not interpreted():
        if device.type != "cuda":
            return f"they need a CUDA device and this is {device.type}"
        if torch.version.cuda is None:
            return "they need CUDA and this torch was built for another vendor's devices"
        capability = torch.cuda.get_device_capability(device)
        if capability < CAPABILITY:
            return "the device has compute capability {}.{} and they need {}.{}".format(
                *capability, *CAPABILITY
            )
    return _without_triton()


def interpreted() -> bool:
    """Whether Triton's interpreter runs the kernels, on any device."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@cache
def _without_triton() -> str | None:
    try:
        importlib.import_module("triton")
    except ImportError as error:
        return (
            f"Triton cannot be imported ({error}): it comes with torch for CUDA, or with `pip install"
            " loraloom[gpu]`"
        )
    return None
