"""Whose rows are whose in a pass, and the cell in which all wrapped layers of a model look it up."""

from __future__ import annotations

import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from types import SimpleNamespace
from typing import Any

from torch import Tensor

from loraloom.lora.kernels.tables import PackTables
from loraloom.lora.pass_stack import PassStack
from loraloom.lora.segment import Segment


@dataclass(frozen=True)
class Routing:
    """Which rows belong to which adapter, for one forward pass and its backward pass.

    An empty `segments` is the bare base model. `training` switches dropout on. `stack` holds the
    candidates' A and B side by side, where they are alike; with `tables`, kernels do the candidates'
    part. `PackedModel.route` makes the one or the other.
    """

    segments: tuple[Segment, ...] = ()
    training: bool = False
    stack: PassStack | None = None
    tables: PackTables | None = None

    @cached_property
    def even(self) -> bool:
        """Whether the segments follow one another from row 0 with equally many rows:
        then they can be stacked."""
        size = self.segments[0].stop if self.segments else 0
        return all(s.start == k * size and s.stop == (k + 1) * size for k, s in enumerate(self.segments))

    def spans(self, tokens: int) -> Tensor:
        """The table of whose tokens are where, for layers that see so many tokens in a row: one copy to
        the device for all of them."""
        assert self.tables is not None
        if tokens not in self._spans:
            self._spans[tokens] = self.tables.spans(self.segments, tokens)
        return self._spans[tokens]

    def take_spans(self, spans: Mapping[int, Tensor]) -> None:
        """Use these tables, by tokens, where they would be made."""
        self._spans.update(spans)

    @cached_property
    def _spans(self) -> dict[int, Tensor]:
        return {}


BASE = Routing()


class Route:
    """The one mutable cell that all wrapped layers of a model share.

    Args:
        shared: one cell for all threads: on CUDA the backward pass runs in another one. On a CPU it runs
            where it was called, and each thread may have a pass of its own.
    """

    def __init__(self, *, shared: bool = True) -> None:
        self._cell: Any = SimpleNamespace() if shared else threading.local()

    @property
    def current(self) -> Routing | None:
        return getattr(self._cell, "routing", None)

    @current.setter
    def current(self, routing: Routing | None) -> None:
        self._cell.routing = routing

    def get(self) -> Routing:
        if (current := self.current) is None:
            raise AssertionError("a packed layer was run outside `PackedModel.route`")
        return current

    @contextmanager
    def only(self, segment: Segment) -> Generator[None]:
        """Within, the batch is this segment's rows and no others."""
        whole = self.get()
        own = replace(segment, start=0, stop=segment.stop - segment.start)
        self.current = replace(whole, segments=(own,), stack=None)
        try:
            yield
        finally:
            self.current = whole
