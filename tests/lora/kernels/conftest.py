"""Kernels are tested on a GPU where there is one, else by Triton's interpreter on the
CPU, in a process of its own.

The interpreter has to be chosen before Triton is first imported. `test_by_the_interpreter.py` does so.
By hand: TRITON_INTERPRET=1 pytest tests/lora/kernels
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
collect_ignore_glob: list[str] = []
if INTERPRETED:
    collect_ignore_glob = ["test_by_the_interpreter.py", "test_compiled.py"]
elif not torch.cuda.is_available():
    collect_ignore_glob = ["test_on_*.py"]

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "parity"))  # its tiny models and candidates
if INTERPRETED:
    torch.set_num_threads(1)


@pytest.fixture
def device() -> torch.device:
    return torch.device("cpu" if INTERPRETED else "cuda")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """On a GPU these tests are among those that need one."""
    for item in items:
        if (
            item.path.parent == Path(__file__).parent
            and item.path.name.startswith("test_on_")
            and not INTERPRETED
        ):
            item.add_marker(pytest.mark.gpu)
