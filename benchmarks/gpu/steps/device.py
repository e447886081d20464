"""What the machine is, and how fast it copies, multiplies and takes orders."""

from __future__ import annotations

import platform
import shutil
import subprocess
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any

import torch

from loraloom.facts.device import cpu_name, usable_cores
from loraloom.lora.kernels import refusal
from steps.bench import Bench
from steps.training import synchronise

PACKAGES = (
    "loraloom",
    "torch",
    "triton",
    "transformers",
    "peft",
    "accelerate",
    "bitsandbytes",
    "liger-kernel",
    "numpy",
    "pydantic",
    "optuna",
    "plotly",
)
ASKED = (
    "driver_version,power.limit,clocks.max.sm,clocks.max.memory,pcie.link.gen.current,"
    "pcie.link.width.current"
)
ORDERS = 2000


def measure(bench: Bench) -> None:
    bench.part("machine", lambda: machine(bench))
    bench.part("driver", lambda: driver(bench))
    bench.part("rates", lambda: rates(bench))


def machine(bench: Bench) -> dict[str, Any]:
    """The device in words and numbers, without the machine's name."""
    found: dict[str, Any] = {
        "packages": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "cuda": torch.version.cuda,
        "processor": cpu_name(),
        "cores": usable_cores(),
        "system": platform.system(),
        "kernels": refusal(bench.device, torch.bfloat16) or "used",
    }
    if bench.on_cuda:
        about, (free, total) = torch.cuda.get_device_properties(0), torch.cuda.mem_get_info()
        found |= {
            "device": torch.cuda.get_device_name(),
            "capability": list(torch.cuda.get_device_capability()),
            "total_bytes": total,
            "free_bytes": free,
            "multiprocessors": about.multi_processor_count,
            "devices": torch.cuda.device_count(),
            "cudnn": torch.backends.cudnn.version(),
        }
    return found


def driver(bench: Bench) -> dict[str, Any]:
    """What the driver's own tool says of the first device."""
    bench.only_on_cuda()
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return {"said": "there is no nvidia-smi"}
    words = [tool, f"--query-gpu={ASKED}", "--format=csv,noheader", "--id=0"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
    values = [value.strip() for value in done.stdout.split(",")]
    names = ASKED.split(",")
    return (
        dict(zip(names, values, strict=True))
        if len(values) == len(names)
        else {"said": done.stdout + done.stderr}
    )


def version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@torch.no_grad()
def rates(bench: Bench) -> dict[str, Any]:
    """Rates of large products and copies, and the time that a kernel of nothing takes
    to be asked for."""
    side, size = (64, 2**16) if bench.small else (8192, 2**30)
    found: dict[str, Any] = {}
    for dtype in ("bfloat16", "float32"):
        x = torch.randn(side, side, device=bench.device, dtype=getattr(torch, dtype))
        found[f"{dtype}_flops"] = 2 * side**3 / best_seconds(bench, lambda x=x: torch.mm(x, x))
    here = torch.empty(size, dtype=torch.uint8, device=bench.device)
    there = torch.empty_like(here)
    found["copy_bytes_per_second"] = 2 * size / best_seconds(bench, lambda: there.copy_(here))
    if bench.on_cuda:
        host = torch.empty(size // 8, dtype=torch.uint8).pin_memory()
        seconds = best_seconds(bench, lambda: here[: len(host)].copy_(host, non_blocking=True))
        found["from_host_bytes_per_second"] = len(host) / seconds
    one = torch.zeros(1, device=bench.device)

    def orders() -> None:
        for _ in range(ORDERS):
            one.add_(1.0)

    found["microseconds_per_launch"] = 1e6 * best_seconds(bench, orders) / ORDERS
    return found


def best_seconds(bench: Bench, run: Callable[[], object], repeats: int = 5) -> float:
    run()
    synchronise(bench)
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        synchronise(bench)
        best = min(best, time.perf_counter() - started)
    return best
