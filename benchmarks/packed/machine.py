"""What the machine is, how fast it multiplies, and how much memory a piece of work
takes at its widest."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import psutil
import torch

PACKAGES = ("loraloom", "torch", "transformers", "peft", "accelerate", "numpy")


def describe(device: str) -> dict[str, str | int | bool]:
    """The machine in words and numbers, without its name."""
    found: dict[str, str | int | bool] = {
        "processor": _processor(),
        "cores": (
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        ),
        "threads": torch.get_num_threads(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.system(),
        "torch_cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }
    if device == "cuda":
        found |= {
            "gpu": torch.cuda.get_device_name(),
            "gpu_memory_bytes": torch.cuda.get_device_properties(0).total_memory,
        }
    return found


def versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def synchronise(device: str) -> None:
    """Wait for all that was asked of the device: a clock read before that measures only the asking."""
    if device == "cuda":
        torch.cuda.synchronize()


@torch.no_grad()
def matmul_rate(sides: Sequence[int], device: str, *, repeats: int = 5) -> float:
    """The best rate of any bfloat16 product x W^T of square matrices, in FLOP/s (2 n^3 for side n)."""
    best = 0.0
    for side in sides:
        x, w = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
        torch.nn.functional.linear(x, w)
        for _ in range(repeats):
            synchronise(device)
            started = time.perf_counter()
            torch.nn.functional.linear(x, w)
            synchronise(device)
            best = max(best, 2 * side**3 / (time.perf_counter() - started))
    return best


class MemoryMeter:
    """Peak memory above what is held when `mark` is called, in bytes.

    On CUDA it is what torch allocated; on a CPU what Linux counted as resident (the high-water mark of
    /proc/self/status, reset by writing 5 to /proc/self/clear_refs). Elsewhere it is not known: None.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.marked: int | None = None

    def mark(self) -> int | None:
        """Start from here; gives the bytes now held."""
        if self.device == "cuda":
            synchronise(self.device)
            torch.cuda.reset_peak_memory_stats()
            self.marked = torch.cuda.memory_allocated()
        else:
            try:
                Path("/proc/self/clear_refs").write_text("5")
                self.marked = _status("VmRSS")
            except OSError:
                self.marked = None
        return self.marked

    def peak(self) -> int | None:
        """The most that was held since, above what was held then."""
        if self.marked is None:
            return None
        highest = torch.cuda.max_memory_allocated() if self.device == "cuda" else _status("VmHWM")
        return max(0, highest - self.marked)


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))
