"""What a fault looks like from outside."""

from __future__ import annotations

import pytest
import torch

from loraloom.lora.device_faults import is_out_of_memory


@pytest.mark.parametrize(
    ("fault", "is_memory"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 80 bytes"),
            True,
        ),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp] . DefaultCPUAllocator: not enough memory: you tried to"
                " allocate 1"
            ),
            True,
        ),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_a_lack_of_memory_is_told_from_other_faults(fault: BaseException, is_memory: bool) -> None:
    assert is_out_of_memory(fault) is is_memory
