"""Memory that a pass frees: it stays for the next pass, until it is given back."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

PIECE = 48 * 2**20
"""Bytes: more than glibc would keep by itself."""
SCRIPT = f"""
import resource
from pathlib import Path
from loraloom.lora.freed_memory import give_back_freed_memory, keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

def passes(count):
    before = faults()
    for _ in range(count):
        bytearray({PIECE})
    return faults() - before

by_itself = passes(4)
keep_freed_memory()
passes(1)
kept, held = passes(4), resident()
give_back_freed_memory()
print(by_itself, kept, held - resident())
"""


def test_what_a_pass_frees_is_not_taken_anew_and_can_be_given_back() -> None:
    if not sys.platform.startswith("linux") or not hasattr(ctypes.CDLL(None), "mallopt"):
        pytest.skip("the C library is not glibc")
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    by_itself, kept, given_back = map(int, done.stdout.split())
    assert kept < by_itself / 10
    assert given_back > PIECE / 2
