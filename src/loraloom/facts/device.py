"""What the machine is: kind, memory, cores, and precisions that work here."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from loraloom.facts.gpu_path import (
    VISIBLE,
    Refusals,
    cuda_is_available,
    name_of_gpu,
    refusals,
    used_parts,
    why_unused,
)

DeviceKind = Literal["cpu", "cuda", "mps"]
PACKAGES = (
    "loraloom",
    "torch",
    "transformers",
    "peft",
    "optuna",
    "safetensors",
    "tokenizers",
    "numpy",
    "pydantic",
    "sqlalchemy",
)
PRECISIONS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "fp64": "float64"}
BF16_CPU_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""Processor flags that mean a bf16 product in hardware (x86: AVX-512 BF16, AMX; Arm: bf16)."""
MODELS = "transformers.modeling_utils"
MODELS_BYTES = 212e6
"""What transformers' models and what is imported with them take: measured as the difference between a
plan that needs them and one that does not (torch 2.13, transformers 5.23)."""
QUANTISER, QUANTISER_BYTES = "bitsandbytes", 48e6
"""What makes and reads codes of a base in few bits, and what importing it takes (0.50.2)."""

CUDA_CONTEXT_BYTES = 600_000_000
"""What CUDA and its libraries take of a GPU before anything is computed."""

NOTABLE_BYTES = 2**30
"""What others hold of a GPU and is worth a word once memory has run out."""

CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")
"""Microseconds of a processor that a container may have in a period of so many."""


@dataclass(frozen=True)
class DeviceFacts:
    """Where training will run. Memory in bytes; on a CPU it is the machine's (or the
    container's) memory."""

    kind: DeviceKind
    name: str
    total_bytes: int
    free_bytes: int
    cores: int
    bf16_native: bool
    """Whether bf16 is computed in hardware. Elsewhere torch emulates it: it works and is slow."""
    compute_capability: tuple[int, int] | None = None
    threads: int = 1
    """Threads that torch computes with."""
    process_bytes: int = 0
    """What this process holds beside a model, on a CPU; 0 where that is not known."""
    quantiser_bytes: int = 0
    """What it will hold more with a base in few bits; 0 where it does already."""
    share: float = 1.0
    """Share of the cores that other processes leave to this one now; 1 where there are
    none, and on a GPU."""
    own_bytes: int = 0
    """What this process holds of a GPU already."""
    count: int = 1
    """GPUs that torch sees; the first is used."""
    next_gpu: str = ""
    """What the second one is called in `CUDA_VISIBLE_DEVICES`."""
    refusals: Refusals = field(default_factory=dict[str, Mapping[str, str | None]])
    """On a GPU, why parts of the fast path are not used."""
    unused_gpu: str = ""
    """On a CPU, why a GPU that is here, or was asked for, cannot be used."""

    @property
    def notice(self) -> str:
        """What a person should know of the device that was taken; empty where there is
        nothing to say."""
        if self.unused_gpu:
            return f"a GPU is not used, and this runs on the CPU: {self.unused_gpu}"
        if self.count > 1:
            return (
                f"of {self.count} GPUs the first is used, {self.name}: {VISIBLE}={self.next_gpu} takes"
                " the next"
            )
        return ""

    @property
    def others_bytes(self) -> int:
        """What other processes hold."""
        return max(0, self.total_bytes - self.free_bytes - self.process_bytes - self.own_bytes)


def device_facts(kind: DeviceKind | None = None) -> DeviceFacts:
    """Look at the machine: the accelerator that torch sees, else the processor. `kind`
    forces one of them."""
    import torch

    forced = kind is not None
    kind = kind or best_kind()
    if kind == "cuda":
        free, total, own = cuda_memory()
        capability = torch.cuda.get_device_capability()
        count = torch.cuda.device_count()
        return DeviceFacts(
            kind="cuda",
            name=torch.cuda.get_device_name(),
            total_bytes=total,
            free_bytes=free,
            cores=torch.get_num_threads(),
            bf16_native=capability >= (8, 0),
            compute_capability=capability,
            own_bytes=own,
            count=count,
            next_gpu=name_of_gpu(1) if count > 1 else "",
            refusals=refusals(kind),
        )
    total, free = _host_memory()
    if kind == "mps":
        total = min(total, int(torch.mps.recommended_max_memory()))
        return DeviceFacts(
            kind="mps",
            name="Apple GPU",
            total_bytes=total,
            free_bytes=min(free, total),
            cores=torch.get_num_threads(),
            bf16_native=True,
            refusals=refusals(kind),
        )
    return DeviceFacts(
        kind="cpu",
        name=cpu_name(),
        total_bytes=total,
        free_bytes=free,
        cores=usable_cores(),
        bf16_native=bool(_cpu_flags() & BF16_CPU_FLAGS),
        threads=_threads(),
        process_bytes=_process_bytes(),
        quantiser_bytes=0 if QUANTISER in sys.modules else int(QUANTISER_BYTES),
        unused_gpu="" if forced else why_unused(),
    )


def cuda_memory() -> tuple[int, int, int]:
    """(free, total, own) bytes of the GPU in use: what this process could still take,
    all there is, and what it has taken.

    Blocks that torch's allocator holds and that hold nothing are free to this process, although the
    driver counts them as taken.
    """
    import torch

    free, total = torch.cuda.mem_get_info()
    reserved = torch.cuda.memory_reserved()
    allocated = torch.cuda.memory_allocated()
    return free + reserved - allocated, total, allocated + CUDA_CONTEXT_BYTES


def held_by_others_now() -> str:
    """ "other processes hold 59.5 GiB of its 80.0 GiB"; empty where there is no GPU, it
    does not answer, or it is hardly used."""
    import torch

    try:
        if not torch.cuda.is_initialized():
            return ""
        free, total, own = cuda_memory()
    except RuntimeError:
        return ""
    others = total - free - own
    return (
        f"other processes hold {others / 2**30:.1f} GiB of its {total / 2**30:.1f} GiB"
        if others > NOTABLE_BYTES
        else ""
    )


def environment(dtype: str | None = None) -> dict[str, Any]:
    """Versions, device and working precisions, as plain values: what `loraloom env`
    shows and run.json keeps.

    Args:
        dtype: of the base, for what a GPU does with it; None for the half precision
            that the device is best at.
    """
    device = device_facts()
    dtype = dtype or ("bfloat16" if device.bf16_native else "float16")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "device": {
            "kind": device.kind,
            "name": device.name,
            "total_bytes": device.total_bytes,
            "free_bytes": device.free_bytes,
            "compute_capability": list(device.compute_capability) if device.compute_capability else None,
        },
        "gpu": gpu_document(device, dtype),
        "cores": usable_cores(),
        "threads": _threads(),
        "precisions": {name: _proof(device, dtype) for name, dtype in PRECISIONS.items()},
    }


def gpu_document(device: DeviceFacts, dtype: str) -> dict[str, Any] | None:
    """What a GPU is used with for a base of this dtype: {count, dtype, PART: {used, reason}}.

    Of a GPU that is here and cannot be used {unused: why}; None where there is none.
    """
    if device.kind == "cpu":
        return {"unused": device.unused_gpu} if device.unused_gpu else None
    return {"count": device.count, "dtype": dtype, **used_parts(device.refusals, dtype)}


def _proof(device: DeviceFacts, dtype: str) -> dict[str, Any]:
    """One product and its gradient in this precision: whether it runs, and is right,
    rather than claimed to be."""
    import torch

    native = {
        "bfloat16": device.bf16_native,
        "float16": device.kind != "cpu",
        "float64": device.kind != "mps",
    }.get(dtype, True)
    try:
        weight = torch.full(
            (16, 16), 0.5, dtype=getattr(torch, dtype), device=device.kind, requires_grad=True
        )
        product = weight @ weight
        product.sum().backward()
        right = (
            bool((product == 4).all()) and weight.grad is not None and bool((weight.grad == 16).all())
        )
    except (RuntimeError, TypeError, ValueError) as fault:
        return {"works": False, "native": False, "reason": str(fault).splitlines()[0]}
    return {"works": right, "native": native and right}


def best_kind() -> DeviceKind:
    """The accelerator that torch can use, else the processor."""
    import torch

    if cuda_is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _host_memory() -> tuple[int, int]:
    """Total and free bytes, no more than the container that we run in allows."""
    import psutil

    memory = psutil.virtual_memory()
    total = int(memory.total)
    free = int(memory.available)
    limit = _read_int(Path("/sys/fs/cgroup/memory.max"))
    used = _read_int(Path("/sys/fs/cgroup/memory.current"))
    if limit is not None and limit < total:
        total = limit
        free = min(free, max(0, limit - (used or 0)))
    return total, free


def _process_bytes() -> int:
    """What this process holds, and will hold once a model is loaded, beside the model."""
    import psutil

    return int(psutil.Process().memory_info().rss + (0 if MODELS in sys.modules else MODELS_BYTES))


def _read_int(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def usable_cores() -> int:
    """Cores that this process may use, no more than the container that we run in allows."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = (int(word) for word in CPU_LIMIT.read_text().split())
    except (OSError, ValueError):  # no such file, or "max": no limit
        return cores
    return max(1, min(cores, -(-quota // period)))


def _threads() -> int:
    import torch

    return torch.get_num_threads()


@cache
def _cpu_info() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _cpu_field(*names: str) -> str:
    for line in _cpu_info().splitlines():
        key, _, value = line.partition(":")
        if key.strip().lower() in names:
            return value.strip()
    return ""


def cpu_name() -> str:
    return _cpu_field("model name") or platform.processor() or platform.machine()


def _cpu_flags() -> frozenset[str]:
    return frozenset(_cpu_field("flags", "features").split())


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
