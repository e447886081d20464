"""What is said of a GPU: what it is used with, and why one that is here is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from loraloom.facts import device, gpu_path
from loraloom.facts.device import DeviceFacts, device_facts, environment
from loraloom.facts.gpu_path import name_of_gpu, refusals, used_parts, why_unused
from loraloom.lora import kernels

TOO_OLD = (
    "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver by"
    " downloading and installing a new version from the URL: http://www.nvidia.com/Download/index.aspx"
)
NO_DRIVER = (
    "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU and installed a"
    " driver from"
)


@pytest.fixture
def cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Cards of the machine as Linux lists them: (vendor, class)."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(gpu_path, "PCI", tmp_path)

    def put(*found: tuple[str, str]) -> None:
        for number, (vendor, kind) in enumerate(found):
            (tmp_path / str(number)).mkdir()
            (tmp_path / str(number) / "vendor").write_text(f"{vendor}\n")
            (tmp_path / str(number) / "class").write_text(f"{kind}\n")

    return put


def built_for_cuda(monkeypatch: pytest.MonkeyPatch, refusal: str | None) -> None:
    """A torch with CUDA whose devices cannot be used, for this reason."""

    def init() -> None:
        if refusal is not None:
            raise RuntimeError(refusal)

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "init", init)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_a_driver_that_is_too_old_is_said(cards: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    built_for_cuda(monkeypatch, TOO_OLD)
    assert why_unused() == "The NVIDIA driver on your system is too old (found version 11040)"
    facts = device_facts()
    assert facts.kind == "cpu" and "runs on the CPU" in facts.notice and "11040" in facts.notice
    assert "11040" in environment()["gpu"]["unused"]


@pytest.mark.parametrize(
    ("card", "visible", "said"),
    [
        (("0x10de", "0x030200"), None, True),
        (("0x10de", "0x040300"), None, False),  # its sound
        (("0x1002", "0x030000"), None, False),
        (("0x1002", "0x030000"), "0", True),  # asked for
        (("0x10de", "0x030200"), "", False),  # hidden
        (("0x10de", "0x030200"), "-1", False),
    ],
)
def test_a_missing_driver_is_said_where_there_is_a_card(
    card: tuple[str, str], visible: str | None, said: bool, cards: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards(card)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    built_for_cuda(monkeypatch, NO_DRIVER)
    assert ("Found no NVIDIA driver" in why_unused()) is said


def test_a_torch_without_cuda_beside_a_card_is_said(cards: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    assert why_unused() == ""
    cards(("0x10de", "0x030000"))
    assert "built without CUDA" in why_unused()


def test_torch_s_own_warning_is_not_printed_beside_ours(
    monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    import warnings

    def is_available() -> bool:
        warnings.warn("CUDA initialization: The NVIDIA driver on your system is too old", stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", is_available)
    assert not gpu_path.cuda_is_available() and not recwarn.list


def test_nothing_is_said_where_nothing_is_wrong(cards: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    built_for_cuda(monkeypatch, NO_DRIVER)
    assert device_facts().notice == "" and environment()["gpu"] is None


def test_what_is_said_of_the_kernels_is_what_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        kernels,
        "refusal",
        lambda kind, dtype: "they are tired" if dtype == torch.float64 and kind == "cuda" else None,
    )
    found = refusals("cuda")
    assert used_parts(found, "bfloat16")["kernels"] == {"used": True, "reason": None}
    assert used_parts(found, "float64")["kernels"] == {"used": False, "reason": "they are tired"}


def test_an_apple_gpu_takes_the_plain_path() -> None:
    assert "need a CUDA device and this is mps" in (refusals("mps")["kernels"]["float32"] or "")


def test_which_of_several_gpus_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = DeviceFacts("cuda", "a GPU", 1, 1, 1, True, (9, 0), count=4, next_gpu="5")
    assert "of 4 GPUs the first" in facts.notice and "CUDA_VISIBLE_DEVICES=5" in facts.notice
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 5,7")
    assert name_of_gpu(1) == "5"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert name_of_gpu(1) == "1"


def test_the_environment_of_a_gpu_says_what_it_is_used_with(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = DeviceFacts(
        "cuda", "a GPU", 1, 1, 1, True, (9, 0), refusals={"kernels": {"bfloat16": None, "float32": "no"}}
    )
    assert device.gpu_document(facts, "bfloat16") == {
        "count": 1,
        "dtype": "bfloat16",
        "kernels": {"used": True, "reason": None},
    }
    assert device.gpu_document(facts, "float32") == {
        "count": 1,
        "dtype": "float32",
        "kernels": {"used": False, "reason": "no"},
    }
