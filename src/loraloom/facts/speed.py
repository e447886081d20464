"""How fast this machine multiplies matrices when it has nothing else to do, and what
other processes leave of it now.

While others have the cores, a product takes longer by the wall's clock and as long as ever by the
processor's. So the rate of a busy machine is taken from the seconds that this process had of a
processor, and it is not kept: what is remembered is an idle machine's rate, and a later, faster
measurement replaces it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from loraloom.facts.device import DeviceKind, cpu_name, usable_cores
from loraloom.facts.remembered import keep, recalled

ENOUGH_SECONDS = 0.1
"""Of a processor: so long a product is repeated."""
MOST_SECONDS = 1.0
"""Of the wall's clock, where others leave hardly any of the processor."""
BUSY = 1.3
"""Wall's seconds over those of a processor from which on other processes are said to be
in the way; less is noise."""
LEAST_SHARE = 0.01


@dataclass(frozen=True)
class Speed:
    """Floating-point operations a second of an idle machine, and the share of its cores that this
    process gets now, 0 to 1."""

    flops: float
    share: float = 1.0


@dataclass(frozen=True)
class Clocks:
    """Where seconds are read."""

    wall: Callable[[], float]
    own: Callable[[], float]
    """Seconds that all threads of this process had of a processor."""
    every: Callable[[], float]
    """Seconds that all processes had, on all cores; nan where the system does not tell."""


@dataclass(frozen=True)
class Span:
    """Seconds between two looks at the clocks."""

    wall: float
    own: float
    every: float

    def share(self, cores: int) -> float:
        """Of `cores`, all of which were wanted, the share that others left; 1 where
        they left nearly all.

        What we did not get counts only as far as others had it: a product may leave a
        core idle by itself.
        """
        wanted = self.wall * cores
        others = max(0.0, self.every - self.own) if not math.isnan(self.every) else math.inf
        lost = min(max(0.0, wanted - self.own), others)
        share = 1 - lost / wanted if wanted > 0 else 1.0
        return 1.0 if share > 1 / BUSY else max(LEAST_SHARE, share)


@cache
def matmul_speed(kind: DeviceKind, dtype: str) -> Speed:
    """`matmul_speed_now`, once a process."""
    return matmul_speed_now(kind, dtype)


def matmul_speed_now(kind: DeviceKind, dtype: str) -> Speed:
    """Rate of a large square matrix product, measured in about 0.1 s, and the share of
    the cores that we had meanwhile.

    The best idle rate is kept in the user's cache folder, by device, precision, threads
    and release of torch.
    """
    import torch

    name = torch.cuda.get_device_name() if kind == "cuda" else cpu_name()
    key = f"{kind} {name}, {dtype}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    size = 4096 if kind == "cuda" else 768
    left = torch.randn(size, size, dtype=getattr(torch, dtype), device=kind)
    cores = min(torch.get_num_threads(), usable_cores()) if kind == "cpu" else 0
    return remembered_speed(key, measured(lambda: torch.mm(left, left)[0, 0].item(), 2 * size**3, cores))


def matmul_flops(kind: DeviceKind, dtype: str) -> float:
    """The rate alone."""
    return matmul_speed(kind, dtype).flops


def cores_share(kind: DeviceKind) -> float:
    """Of the processor's cores, what others leave to this process now. On a GPU nothing
    is known of others: 1."""
    return matmul_speed(kind, "float32").share if kind == "cpu" else 1.0


def cores_share_now(kind: DeviceKind) -> float:
    """The same, measured anew."""
    return matmul_speed_now(kind, "float32").share if kind == "cpu" else 1.0


def remembered_speed(key: str, now: Speed) -> Speed:
    """`now`, with the rate that is known under `key` where that is the better one; kept
    where it was measured undisturbed."""
    known = recalled("matmul_flops", key) or 0.0
    if now.share == 1.0 and now.flops > known:
        keep("matmul_flops", key, now.flops)
    return Speed(max(known, now.flops), now.share)


def measured(
    run: Callable[[], object], operations: float, cores: int, clocks: Clocks | None = None
) -> Speed:
    """Repeat `run` for a while.

    Args:
        operations: of one run.
        cores: that a run keeps busy; 0 where it does not run on the processor, and
            nothing is known of who else is there.
    """
    clocks = clocks or CLOCKS
    run()
    began = look(clocks)
    best = math.inf
    repeats = 0
    while True:
        started = clocks.wall()
        run()
        best = min(best, clocks.wall() - started)
        repeats = repeats + 1
        spent = since(began, clocks)
        if spent.wall >= MOST_SECONDS or (spent.wall if not cores else spent.own) >= ENOUGH_SECONDS:
            break
    share = spent.share(cores) if cores else 1.0
    seconds = best if share == 1.0 else min(best, spent.own / cores / repeats)
    return Speed(operations / max(seconds, 1e-9), share)


def look(clocks: Clocks) -> Span:
    """The clocks as they stand."""
    return Span(clocks.wall(), clocks.own(), clocks.every())


def since(began: Span, clocks: Clocks) -> Span:
    """What went by since `began`."""
    now = look(clocks)
    return Span(now.wall - began.wall, now.own - began.own, now.every - began.every)


def _every_process() -> float:
    import psutil

    times = psutil.cpu_times()
    return (
        sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq", "steal"))
        or math.nan
    )


CLOCKS = Clocks(time.perf_counter, time.process_time, _every_process)
