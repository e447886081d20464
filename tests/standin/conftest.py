"""The device can be registered only before a process first trains: the tests on it run
in a process of their own.

`test_in_its_own_process.py` starts them there. To run them by hand: STAND_IN=1 pytest tests/standin
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ALONE = "STAND_IN" in os.environ
collect_ignore_glob = ["test_in_its_own_process.py"] if ALONE else ["test_on_*.py"]

if ALONE:
    os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported
    TESTS = Path(__file__).resolve().parents[1]
    # their tiny models, and the way through the door
    sys.path[:0] = [str(TESTS / "parity"), str(TESTS / "end_to_end")]

    import peft  # noqa: F401  # it reads bitsandbytes, which must not find the device below by CUDA's name
    import torch
    from stand_in import StandIn, stand_in

    from loraloom.lora import kernels

    torch.set_num_threads(1)

    @pytest.fixture
    def cuda() -> Iterator[StandIn]:
        """The device, under the name of CUDA."""
        with stand_in("cuda") as device:
            yield device

    @pytest.fixture
    def without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
        """As on Windows; and here, where Triton is interpreted, many times faster."""
        monkeypatch.setattr(kernels, "_without_triton", lambda: "there is no Triton")
