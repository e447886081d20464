"""Where the kernels can be used, and what is said where they cannot."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch

from loraloom.errors import ModelError
from loraloom.lora import kernels
from loraloom.lora.packed import PackedModel


@pytest.fixture
def a_cuda_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(kernels, "_without_triton", lambda: None)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


@pytest.mark.usefixtures("a_cuda_device")
def test_a_cuda_device_takes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernels.refusal("cuda", torch.bfloat16) is None
    assert "float64" in (kernels.refusal("cuda", torch.float64) or "")
    assert "cpu" in (kernels.refusal("cpu", torch.float32) or "")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert "7.5" in (kernels.refusal("cuda", torch.float16) or "")
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "vendor" in (kernels.refusal("cuda", torch.float16) or "")


def test_without_triton_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> Any:
        raise ImportError(f"No module named '{name}'")

    monkeypatch.setattr("importlib.import_module", nothing)
    assert "pip install loraloom[gpu]" in (kernels._without_triton.__wrapped__() or "")  # pyright: ignore[reportPrivateUsage]


def test_a_cpu_does_without_and_refuses_them_when_they_are_demanded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert not PackedModel(tiny.model_of("llama", torch.float32)).kernels
    with pytest.raises(ModelError, match="kernels cannot be used"):
        PackedModel(tiny.model_of("llama", torch.float32), kernels=True)
