"""CUDA streams on the stand-in device: what may run at the same time has to be safe at the same time.

The stand-in does things in order, so a missing wait changes no number. This mode knows what CUDA would
be free to do: each stream has a clock, waits and events carry clocks from one to another (vector clocks,
Mattern 1989), and every piece of memory remembers who wrote and read it last. Reading what another
stream may still be writing, writing what it may still be reading or writing, and giving back what it may
still be using, is an error.

The host is a stream too as far as pinned memory goes: it has to wait for an event before it touches what
a copy reads or writes. Of its own memory, and of copies for which it waits, it is never asked.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from stand_in import StandIn, is_ours, is_pinned, under
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CELL = 64
"""Bytes that are told apart: tensors of their own begin at a multiple of it."""

_numbers = itertools.count()
Clock = dict[int, int]
"""How far each stream was, by its number."""


class RaceError(AssertionError):
    """Two streams may meet in one piece of memory."""


class Stream:
    """torch.cuda.Stream"""

    def __init__(self, device: Any = None) -> None:
        self.device, self.number = device, next(_numbers)
        self.clock: Clock = {self.number: 0}

    def wait_stream(self, other: Stream) -> None:
        _join(self.clock, other.clock)

    def wait_event(self, event: Event) -> None:
        _join(self.clock, event.clock)

    def record_event(self, event: Event | None = None) -> Event:
        event = event or Event()
        event.record(self)
        return event

    def synchronize(self) -> None:
        _join(HOST.clock, self.clock)


class Event:
    """torch.cuda.Event"""

    def __init__(self, **_: Any) -> None:
        self.clock: Clock = {}

    def record(self, stream: Stream | None = None) -> None:
        self.clock = dict((stream or torch.cuda.current_stream()).clock)

    def wait(self, stream: Stream | None = None) -> None:
        _join((stream or torch.cuda.current_stream()).clock, self.clock)

    def synchronize(self) -> None:
        _join(HOST.clock, self.clock)


HOST = Stream()


def _join(clock: Clock, other: Clock) -> None:
    for number, time in other.items():
        clock[number] = max(clock.get(number, 0), time)


@dataclass
class Cell:
    """Who made, wrote and read a piece of memory last, and of whom its maker was told."""

    made_by: int
    on_host: bool
    written: tuple[int, int]
    read: Clock = field(default_factory=dict[int, int])
    recorded: set[int] = field(default_factory=set[int])


class Races(TorchDispatchMode):
    """Watches every operation. Stands above the stand-in's own mode.

    Attributes:
        seen: how often a stream used what another one had written: without any, nothing was tested.
        found: what went wrong. Raising it where it happens would end the process, where autograd runs.
    """

    def __init__(self, device: StandIn) -> None:
        super().__init__()
        self.device = device
        self.cells: dict[int, Cell] = {}
        self.seen = 0
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        stream: Stream = torch.cuda.current_stream()
        given = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        aliases = [one.alias_info for one in func._schema.returns if one.alias_info is not None]
        waits = self.device.waits.total()
        result = func(*args, **kwargs)
        made = [value for value in tree_leaves(result) if isinstance(value, Tensor)]
        if not any(map(is_ours, (*given, *made))):
            stream = HOST
        if aliases and not any(alias.is_write for alias in aliases):
            return result  # a view touches nothing
        if func._schema.name in ("aten::empty_strided", "aten::detach", "aten::_unsafe_view"):
            self._make(made if "empty" in func._schema.name else [], stream)
            return result
        _join(stream.clock, HOST.clock)
        stream.clock[stream.number] += 1
        written = _written(func, args, kwargs)
        for tensor in given:
            if not any(tensor is one for one in written):
                self._read(tensor, stream, func)
        for tensor in written:
            self._write(tensor, stream, func)
        self._make([one for one in made if not any(one is old for old in (*written, *given))], stream)
        if self.device.waits.total() > waits:
            _join(HOST.clock, stream.clock)
        return result

    def record(self, tensor: Tensor, stream: Stream) -> None:
        """Tensor.record_stream"""
        for cell in self._cells(tensor):
            cell.recorded.add(stream.number)

    def check(self) -> None:
        """Nothing went wrong so far; and what one stream made and another used was told of it, or the
        first may have the memory back too early.

        Raises:
            RaceError: two streams may meet.
        """
        if self.found:
            raise RaceError(self.found[0])
        for cell in self.cells.values():
            left = {cell.written[0], *cell.read} - {cell.made_by} - cell.recorded
            if left and not cell.on_host:  # pinned memory is told by the copies themselves
                raise RaceError(f"stream {cell.made_by} may take memory back that {left} use")

    def _cells(self, tensor: Tensor) -> Iterator[Cell]:
        if is_ours(tensor) or is_pinned(tensor):
            for number in _places(tensor):
                if (cell := self.cells.get(number)) is not None:
                    yield cell

    def _read(self, tensor: Tensor, stream: Stream, func: Any) -> None:
        for cell in self._cells(tensor):
            self._after(cell.written, stream, func, "reads what another stream may still be writing")
            cell.read[stream.number] = stream.clock[stream.number]

    def _write(self, tensor: Tensor, stream: Stream, func: Any) -> None:
        for cell in self._cells(tensor):
            self._after(cell.written, stream, func, "writes what another stream may still be writing")
            for one in cell.read.items():
                self._after(one, stream, func, "writes what another stream may still be reading")
            cell.written, cell.read = (stream.number, stream.clock[stream.number]), {}

    def _make(self, tensors: list[Tensor], stream: Stream) -> None:
        """New memory; where it was used before, all that another stream did with it must be over."""
        for tensor in tensors:
            for number in _places(tensor):
                old = self.cells.get(number)
                if old is not None and old.made_by == stream.number and is_ours(tensor):
                    for one in (old.written, *old.read.items()):
                        if one[0] not in old.recorded:
                            self._after(one, stream, None, "is given memory that another may still use")
                now = stream.number, stream.clock[stream.number]
                self.cells[number] = Cell(stream.number, not is_ours(tensor), now)

    def _after(self, one: tuple[int, int], stream: Stream, func: Any, what: str) -> None:
        number, time = one
        self.seen += number != stream.number
        if stream.clock.get(number, 0) < time:
            self.found.append(f"{func}: stream {stream.number} {what} ({number})")


def _places(tensor: Tensor) -> range:
    own = under(tensor)
    if not own.numel():
        return range(0)
    last = sum((n - 1) * s for n, s in zip(own.shape, own.stride(), strict=True))
    start = own.data_ptr()
    return range(start // CELL, (start + (last + 1) * own.element_size() - 1) // CELL + 1)


def _written(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    found = [
        args[place] if place < len(args) else kwargs.get(one.name)
        for place, one in enumerate(func._schema.arguments)
        if one.alias_info is not None and one.alias_info.is_write
    ]
    return [value for value in tree_leaves(found) if isinstance(value, Tensor)]


@contextmanager
def streams(device: StandIn) -> Generator[Races]:
    """Within, torch.cuda has streams and events, and the mode given looks for races."""
    mode, current = Races(device), [Stream()]

    @contextmanager
    def on(stream: Stream) -> Generator[None]:
        current.append(stream)
        try:
            yield
        finally:
            current.pop()

    def synchronize(*_: Any) -> None:
        current[-1].synchronize()

    parts = {
        "Stream": Stream,
        "Event": Event,
        "stream": on,
        "current_stream": lambda *_: current[-1],
        "synchronize": synchronize,
    }
    with (
        mock.patch.multiple(torch.cuda, create=True, **parts),
        mock.patch.object(Tensor, "record_stream", lambda *given: mode.record(*given)),
        mode,
    ):
        yield mode
