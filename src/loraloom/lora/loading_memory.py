"""Memory that quantising a base leaves behind, and nobody needs again.

safetensors maps a file whole, and the map lives as long as any tensor in it does. Of a base that was
quantised on the way, embeddings and norms keep it alive, and with it every weight that was read to make
codes: more than the codes take. malloc keeps what was between a weight and its codes.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from loraloom.lora.freed_memory import give_back_freed_memory

MAPS = Path("/proc/self/smaps")
DONT_NEED = 4
"""madvise's MADV_DONTNEED: pages leave memory, and are read from their file again by whoever asks."""
HEADER = re.compile(r"([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ (\d+)")


@dataclass
class Mapping:
    """Addresses that one map takes; `inode` is 0 where no file is behind it, `changed` counts bytes that
    are not as the file has them."""

    start: int
    end: int
    inode: int
    changed: int = 0


def give_back_memory(model: nn.Module) -> None:
    """Give back what loading `model` has left, as far as this system lets us."""
    give_back_pages(model)
    give_back_freed_memory()


def give_back_pages(model: nn.Module) -> None:
    """Let the files in which parameters of `model` lie take no memory until they are read again. Does
    nothing where the system is not Linux."""
    if not MAPS.exists():
        return
    places = [parameter.data_ptr() for parameter in model.parameters()]
    advise = ctypes.CDLL(None).madvise
    for one in list(_mappings(MAPS.read_text())):
        held = any(one.start <= place < one.end for place in places)
        if held and one.inode and not one.changed:
            advise(ctypes.c_void_p(one.start), ctypes.c_size_t(one.end - one.start), DONT_NEED)


def _mappings(text: str) -> Iterator[Mapping]:
    """What /proc/self/smaps says (proc_pid_smaps(5))."""
    current: Mapping | None = None
    for line in text.splitlines():
        if header := HEADER.match(line):
            if current:
                yield current
            start, end, inode = header.groups()
            current = Mapping(int(start, 16), int(end, 16), int(inode))
        elif current and line.startswith("Anonymous:"):
            current.changed = 1024 * int(line.split()[1])
    if current:
        yield current
