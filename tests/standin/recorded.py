"""CUDA graphs on the stand-in device: operations are recorded with their tensors, and
run again on the same memory.

What a graph does is done: addresses and numbers of the host are kept as they were, and nothing is
computed while recording. So an operation that writes to memory of before leaves it alone then, and
results are memory with nothing in it yet; a wait for the device, and a copy that would be one, is an
error. On a replay each operation runs on the tensors that it had, and its results are written where they
were.

Streams are all one: the stand-in does things in order anyway.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from stand_in import StandIn, is_ours, under
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class CaptureError(RuntimeError):
    """What CUDA says."""


class Memory:
    """Pieces of memory, by address."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []

    def add(self, tensor: Tensor) -> None:
        start, stop = _range(tensor)
        place = bisect_right(self._starts, start)
        self._starts.insert(place, start)
        self._stops.insert(place, stop)

    def __contains__(self, tensor: Tensor) -> bool:
        start, stop = _range(tensor)
        place = bisect_right(self._starts, start) - 1
        return place >= 0 and stop <= self._stops[place]


def _range(tensor: Tensor) -> tuple[int, int]:
    own = under(tensor)
    size = (
        1 + sum((n - 1) * s for n, s in zip(own.shape, own.stride(), strict=True)) if own.numel() else 0
    )
    return own.data_ptr(), own.data_ptr() + size * own.element_size()


class Graph:
    """torch.cuda.CUDAGraph."""

    def __init__(self) -> None:
        self.steps: list[Callable[[], None]] = []
        self.replays = 0

    def replay(self) -> None:
        self.replays += 1
        with torch.no_grad():
            for step in self.steps:
                step()


class Recorder(TorchDispatchMode):
    """Records what runs on the device while a graph is open. Stands above the stand-in's own mode.

    Attributes:
        open: the graph that is being recorded.
        strict: waits are errors, as torch.cuda.set_sync_debug_mode("error") has it.
        graphs: all that were begun.
    """

    def __init__(self, device: StandIn) -> None:
        super().__init__()
        self.device, self.open, self.strict = device, None, False
        self.graphs: list[Graph] = []
        self._made = Memory()
        self._waited = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.open is None:
            result = func(*args, **kwargs)
            self.refuse_waits()
            return result
        written = [value for value in tree_leaves(_written(func, args, kwargs)) if is_ours(value)]
        if written and any(tensor not in self._made for tensor in written):
            # Not now: but looked at as if, so that what is refused is refused.
            self._refuse_copies(func, args, kwargs)
            self.open.steps.append(lambda: _run(func, args, kwargs))
            return (
                None
                if len(func._schema.returns) == 0
                else written[0]
                if len(func._schema.returns) == 1
                else tuple(written)
            )
        result = func(*args, **kwargs)
        self.refuse_waits()
        made = [value for value in tree_leaves(result) if is_ours(value)]
        if written:
            self._refuse_copies(func, args, kwargs)
            self.open.steps.append(lambda: _run(func, args, kwargs))
        elif made and not _views(func):
            for tensor in made:
                self._made.add(tensor)
            self.open.steps.append(lambda: _again(func, args, kwargs, made))
        return result

    def launch(self, run: Callable[[], Any]) -> Any:
        """A kernel that torch does not see."""
        if self.open is None:
            return run()
        self.open.steps.append(run)
        return None

    def refuse_waits(self) -> None:
        waits = self.device.waits.total()
        new, self._waited = waits > self._waited, waits
        if new and (self.open is not None or self.strict):
            raise CaptureError("operation not permitted when stream is capturing")

    def _refuse_copies(self, func: Any, args: Any, kwargs: Any) -> None:
        if func._schema.name.removeprefix("aten::") == "copy_" and is_ours(args[0]) != is_ours(args[1]):
            raise CaptureError(
                "a copy between host and device would be made of the same place each time"
            )

    @contextmanager
    def recording(self, graph: Graph, **options: Any) -> Generator[None]:
        """torch.cuda.graph."""
        assert self.open is None and options["stream"] is not None
        self.graphs.append(graph)
        self._made, self._waited, self.open = Memory(), self.device.waits.total(), graph
        try:
            yield
            self.refuse_waits()
        finally:
            self.open = None

    def debug_mode(self, mode: str | int) -> None:
        """torch.cuda.set_sync_debug_mode"""
        self.strict, self._waited = mode in ("error", 2), self.device.waits.total()


def _written(func: Any, args: Any, kwargs: Any) -> list[Any]:
    return [
        args[place] if place < len(args) else kwargs.get(one.name)
        for place, one in enumerate(func._schema.arguments)
        if one.alias_info is not None and one.alias_info.is_write
    ]


def _views(func: Any) -> bool:
    return any(
        one.alias_info is not None and not one.alias_info.is_write for one in func._schema.returns
    )


def _run(func: Any, args: Any, kwargs: Any) -> None:
    func(*args, **kwargs)


def _again(func: Any, args: Any, kwargs: Any, made: list[Tensor]) -> None:
    new = [value for value in tree_leaves(func(*args, **kwargs)) if is_ours(value)]
    for target, value in zip(made, new, strict=True):
        under(target).copy_(under(value))


class Stream:
    """torch.cuda.Stream"""

    def __init__(self, device: Any = None) -> None:
        self.device = device

    def wait_stream(self, other: Stream) -> None: ...


@contextmanager
def recorded(device: StandIn) -> Generator[Recorder]:
    """Within, torch.cuda has graphs and streams, and the mode given records."""
    mode, streams = Recorder(device), [Stream()]

    @contextmanager
    def on(stream: Stream) -> Generator[None]:
        streams.append(stream)
        try:
            yield
        finally:
            streams.pop()

    parts = {
        "CUDAGraph": Graph,
        "graph": mode.recording,
        "Stream": Stream,
        "stream": on,
        "graph_pool_handle": lambda: (0, 1),
        "current_stream": lambda *_: streams[-1],
        "is_current_stream_capturing": lambda: mode.open is not None,
        "set_sync_debug_mode": mode.debug_mode,
        "get_sync_debug_mode": lambda: 2 if mode.strict else 0,
    }
    kernel: Callable[..., None] = device.kernel
    launch: Callable[..., None] = lambda *args: mode.launch(lambda: kernel(*args))  # noqa: E731
    with (
        mock.patch.multiple(torch.cuda, create=True, **parts),
        mock.patch.object(device, "kernel", launch),
        mode,
    ):
        yield mode
