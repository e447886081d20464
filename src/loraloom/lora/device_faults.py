"""What a device raises, told apart: memory that ran out, and a GPU that failed."""

from __future__ import annotations

import torch

MEMORY_WORDS = (
    "not enough memory",
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "alloc_failed",
    "could not create a primitive",
)
"""How torch's CPU allocator, CUDA libraries, the system and oneDNN put it, in lower case."""
DEVICE_WORDS = (
    "cuda error",
    "cuda driver error",
    "cublas error",
    "cublas_status",
    "cudnn error",
    "cudnn_status",
    "triton error [cuda]",
    "hip error",
    "unspecified launch failure",
    "device-side assert",
    "command buffer",
)
"""How CUDA, its libraries, Triton, ROCm and Metal say that a device failed, in lower case."""


def is_out_of_memory(error: BaseException) -> bool:
    """True for torch's own error, and for those that only say so in words."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in MEMORY_WORDS)


def is_device_failure(error: BaseException) -> bool:
    """Whether a GPU failed: it may answer nothing more in this process, and what lies on it is lost."""
    if is_out_of_memory(error) or not isinstance(error, RuntimeError):
        return False
    return isinstance(error, torch.AcceleratorError) or any(
        word in str(error).lower() for word in DEVICE_WORDS
    )


def is_of_device(error: BaseException) -> bool:
    """Either of the two: whoever answers for what a user gave has no part in it."""
    return is_out_of_memory(error) or is_device_failure(error)
