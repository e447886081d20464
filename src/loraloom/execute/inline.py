"""The worker in this process: a turn is over when `send` returns. One process, one pack, no messages."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from loraloom.train.orders import Order, Report
from loraloom.train.worker import Worker


class Inline:
    """An `Executor` of one worker."""

    several = False
    coming = False

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._reports: deque[Report] = deque()

    def workers(self) -> Sequence[str]:
        return (self._worker.name,)

    def place_of(self, worker: str) -> str:
        return ""

    def send(self, worker: str, orders: Sequence[Order]) -> None:
        assert worker == self._worker.name, worker
        self._reports.append(self._worker.obey(orders))

    def next(self, timeout: float | None = None) -> Report | None:
        return self._reports.popleft() if self._reports else None

    def close(self) -> None:
        self._reports.clear()
