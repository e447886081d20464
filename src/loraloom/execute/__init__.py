"""Where workers run. Whoever decides over candidates knows an `Executor` and nothing behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from loraloom.train.orders import Order, Report


@dataclass(frozen=True)
class Lost:
    """A worker is gone, or is given up: what it was told and has not reported counts as not done."""

    worker: str
    reason: str


@dataclass(frozen=True)
class Joined:
    """A worker has come, with an empty pack. No worker had its name before."""

    worker: str


class Executor(Protocol):
    """Workers, wherever they run: orders go in, reports come out. A worker has one turn at a time."""

    @property
    def several(self) -> bool:
        """Whether there may be several workers, which come and go. Each candidate is then kept by
        itself, where any of them finds it; the pack of a single worker is kept as a whole."""
        ...

    @property
    def coming(self) -> bool:
        """Whether workers are on their way, which `next` will tell of: a base may take long to load."""
        ...

    def workers(self) -> Sequence[str]:
        """Names of the workers that take orders: those that were there from the start, and those of
        whom `next` has told that they joined, without those of whom it has told that they are lost."""
        ...

    def place_of(self, worker: str) -> str:
        """Where a worker works, for people; empty where there is only one place, and for one that is
        gone, whether `next` has told so or not."""
        ...

    def send(self, worker: str, orders: Sequence[Order]) -> None:
        """Give a worker its next turn: orders, done one after the other. None at all asks who is there.

        What ends a turn early is raised here or in `next`, as the error that it is; that a worker is
        gone is no error, and told by `next`.
        """
        ...

    def next(self, timeout: float | None = None) -> Report | Lost | Joined | None:
        """Wait for a turn that is over, a worker that is lost, or one that has come.

        Args:
            timeout: seconds after which None is returned; None to wait as long as it takes.
        """
        ...

    def close(self) -> None:
        """Let the workers go, at once, whatever they do."""
        ...
