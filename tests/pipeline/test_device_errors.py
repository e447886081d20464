"""What a device says when it fails, in our words: cause, need and next step, and
nothing of what is no fault of a device."""

from __future__ import annotations

import pytest
import torch

from loraloom.errors import DeviceError, ModelError
from loraloom.lora.device_faults import is_device_failure, is_out_of_memory
from loraloom.pipeline import device_errors
from loraloom.pipeline.device_errors import in_our_words

TORCH_OOM = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB of which"
    " 1.20 GiB is free. Including non-PyTorch memory, this process has 70.00 GiB memory in use. See"
    " documentation for Memory Management"
)


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUDA error: uncorrectable ECC error encountered"),
        RuntimeError(
            "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm( handle, opa, opb, m,"
            " n, k)`"
        ),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"),
        RuntimeError(
            "CUDA error: unspecified launch failure\nCUDA kernel errors might be reported later"
        ),
    ],
)
def test_a_gpu_that_failed(error: Exception) -> None:
    assert is_device_failure(error) and not is_out_of_memory(error)
    told = in_our_words(error, "loraloom train --resume runs/one")
    assert told is not None and told.exit_code == 1
    assert str(error).splitlines()[0] in str(told) and "reported later" not in str(told)
    assert "nvidia-smi" in str(told) and told.next == "loraloom train --resume runs/one"


def test_an_index_that_is_out_of_its_table_is_no_broken_gpu() -> None:
    told = in_our_words(torch.AcceleratorError("CUDA error: device-side assert triggered"))
    assert told is not None and "token ids and labels" in str(told) and "nvidia-smi" not in str(told)


def test_a_gpu_that_torch_was_not_built_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80"])
    told = in_our_words(
        torch.AcceleratorError("CUDA error: no kernel image is available for execution on the device")
    )
    assert told is not None and "has code for sm_75, sm_80" in str(told)


@pytest.mark.parametrize(
    ("error", "got"),
    [
        (torch.OutOfMemoryError(TORCH_OOM), "CUDA out of memory. Tried to allocate 2.00 GiB"),
        (RuntimeError("CUDA error: out of memory"), "CUDA error: out of memory"),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
            "ALLOC_FAILED",
        ),
        (MemoryError(), "MemoryError"),
    ],
)
def test_memory_that_ran_out(error: Exception, got: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        device_errors, "held_by_others_now", lambda: "other processes hold 9.0 GiB of its 80.0 GiB"
    )
    told = in_our_words(error)
    assert told is not None and told.got is not None
    assert (
        got in told.got
        and "capacity" not in told.got
        and told.got.endswith("; other processes hold 9.0 GiB of its 80.0 GiB")
    )


@pytest.mark.parametrize(
    "error",
    [RuntimeError("shapes do not match"), ValueError("CUDA error: by somebody else"), KeyError("x")],
)
def test_other_errors_stay_what_they_are(error: Exception) -> None:
    assert in_our_words(error) is None
    with pytest.raises(type(error)), device_errors.device_errors():
        raise error


def test_an_error_of_ours_is_not_told_twice() -> None:
    ours = ModelError("the adapter does not fit", got="CUDA error: out of memory")
    with pytest.raises(ModelError) as caught, device_errors.device_errors():
        raise ours
    assert caught.value is ours
    with pytest.raises(DeviceError), device_errors.device_errors():
        raise torch.AcceleratorError("CUDA error: unspecified launch failure")
