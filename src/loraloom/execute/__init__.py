"""Where workers run: in this process today. Whoever decides over candidates knows an
`Executor` and nothing behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from loraloom.train.orders import Order, Report


class Executor(Protocol):
    """Workers, wherever they run: orders go in, reports come out. A worker has one turn at a time."""

    def workers(self) -> Sequence[str]:
        """Names of the workers that take orders."""
        ...

    def send(self, worker: str, orders: Sequence[Order]) -> None:
        """Give a worker its next turn: orders, done one after the other. None at all asks who is there.

        What ends a turn early is raised here or in `next`, as the error that it is.
        """
        ...

    def next(self) -> Report:
        """Wait for a turn that is over."""
        ...

    def close(self) -> None:
        """Let the workers go."""
        ...
