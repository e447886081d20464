"""What the C library does with memory that a pass has freed.

By itself glibc gives large pieces back to the system at once, and takes them anew for the next pass:
page by page, each one filled with zeros first. In a pack of 16 that was a seventh of a step's time.
Kept, they serve the next pass, which takes as much; what a process holds at most stays the same.
"""

from __future__ import annotations

import ctypes
import gc
import os
from typing import Any

import torch

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Numbers of mallopt(3)."""
KEPT = 2**31 - 1
"""Freed bytes at the heap's end that may stay: as many as can be said."""
LARGEST = 64 * 2**20
"""Bytes of a piece that comes from the heap; larger ones are few, and come from the system."""


def keep_freed_memory() -> None:
    """From now on, keep what is freed for what comes next; does nothing where the library is another."""
    mallopt = _function("mallopt")
    if mallopt is not None:
        mallopt(TRIM_THRESHOLD, KEPT)
        mallopt(MMAP_THRESHOLD, LARGEST)


def give_back_freed_memory() -> None:
    """Give back to the system what is kept now."""
    trim = _function("malloc_trim")
    if trim is not None:
        trim(0)


def free_memory(device: torch.device) -> None:
    """Give back what a failed pass left behind, on the device and here; call it outside the `except`
    block, which still holds the pass."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    give_back_freed_memory()


def _function(name: str) -> Any:
    """A function of the C library; None where it has none of that name, as outside of Linux."""
    return None if os.name == "nt" else getattr(ctypes.CDLL(None), name, None)
