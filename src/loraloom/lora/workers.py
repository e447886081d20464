"""Several passes at once on a CPU: threads of our own, each with its share of the processor.

A pass over few tokens is made of many small operations, and a second core speeds up only the large ones
among them. Two passes of half the candidates, each on a core of its own, keep both cores busy.
Candidates share nothing that a pass writes: each has its own gradients, and the routing, the workspaces
and the mode of autograd belong to the thread.

A GPU has one queue and gains nothing: there one pass follows another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

import torch

MOST = 4
"""Passes at once, at most: they share one Python interpreter, whose own work they cannot divide."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers:
    """Runs a function on several items at once, in order of the items as far as results go.

    Args:
        count: how many at once; None for as many as the device has use for.
        device: where the model is.
    """

    def __init__(self, device: torch.device, count: int | None = None) -> None:
        threads = torch.get_num_threads() if device.type == "cpu" else 1
        self.count = most_at_once(device.type, threads) if count is None else count
        self._threads = max(1, threads // self.count)
        self._pool: ThreadPoolExecutor | None = None

    def map(
        self, run: Callable[[Item], Result], items: Sequence[Item], *, together: bool = True
    ) -> list[Result]:
        """`run` of each item; the first error is raised when all have ended.

        Args:
            together: at once, or one after another, each with as many cores as it would have at once.
        """
        if self.count == 1:
            return [run(item) for item in items]
        pool = self._started()
        if not together:
            return [pool.submit(run, item).result() for item in items]
        futures = [pool.submit(run, item) for item in items]
        errors = [error for error in [future.exception() for future in futures] if error is not None]
        if errors:
            raise errors[0]
        return [future.result() for future in futures]

    def _started(self) -> ThreadPoolExecutor:
        if self._pool is None:
            own, all_here = torch.get_num_threads(), Barrier(self.count)
            self._pool = ThreadPoolExecutor(
                self.count, "pass", initializer=_take_cores, initargs=(self._threads,)
            )
            list(self._pool.map(lambda _: all_here.wait(), range(self.count)))
            torch.set_num_threads(own)
        return self._pool


def most_at_once(device_type: str, cores: int) -> int:
    """Passes that a device has use for at once."""
    return max(1, min(MOST, cores)) if device_type == "cpu" else 1


def _take_cores(count: int) -> None:
    """Let torch use so many cores in this thread. The number is a thread's own, but one that never asked
    for it takes, at its first operation, the number that any thread has set last: so it is asked for at
    once."""
    torch.set_num_threads(count)
    torch.get_num_threads()
