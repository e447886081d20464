"""CUDA graphs of passes: where shapes repeat, one call launches all kernels of a pass,
forwards and backwards.

A small pass keeps a GPU busy for less time than the host takes to ask for its thousands of kernels. A
graph keeps what was asked for, with the addresses and the numbers of the host as they were. So whatever
changes from pass to pass (tokens, targets, whose rows are whose, seeds of dropout) lies in one block of
device memory, which is filled anew before the graph runs.

- Passes are padded to lengths, and to numbers of targets, of which there are few, so that shapes repeat.
  Padding is masked as all padding is; targets beyond the real ones repeat the last and count nothing. A
  model that needs no mask for rows padded on the right (a decoder) gets none here either.
- Candidates of one kind (`PackedModel.kind`) may take each other's place: kernels read
  whose tokens are whose in the block.
- The first time that a pass is to be recorded it is rehearsed, and counts: it runs with the block's
  tensors, in an order of events where a wait for the device is an error, and with numbers of the host
  hidden that a graph would not see change. What cannot be recorded (noise drawn on the host, a choice by
  what a tensor holds) is found there, while nothing is lost: the pass runs in the plain way, the reason
  is kept, and the key is not tried again.
"""

from __future__ import annotations

import gc
import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from loraloom.data.batches import Batch, Numbers
from loraloom.data.rows import IGNORED
from loraloom.errors import first_line
from loraloom.evals.cross_entropy import Positions
from loraloom.evals.objective import Objective
from loraloom.lora.packed import PackedModel
from loraloom.lora.routing import Routing
from loraloom.train.seat import Pass, Seat

SEEN = 3
"""A pass is recorded when its like is seen for the third time."""
MOST = 8
"""Graphs kept: those used last. They share their memory."""
LENGTH = 64
"""Rows are padded to a multiple of so many tokens, shorter ones to a power of two, none
beyond the longest there is."""
SMALL, PADDING = 1024, 1.125
"""A pass of more than so many tokens is not worth more than this much padding: there
the GPU is the slower of the two."""
TARGET_STEPS = 8
"""Numbers of targets are padded to one of so many between none and all."""
REFUSALS = 3
"""Keys that were refused, after which no others are tried until candidates join or leave."""


class NotRecordedError(Exception):
    """A graph would not do what the pass does."""


class Hidden:
    """Stands for what only the device knows in a graph: whatever the host would do with
    it is refused."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __getattr__(self, name: str) -> Any:
        raise NotRecordedError(f"the host asks for {self.what}")

    def _refuse(self, *_: object) -> Any:
        raise NotRecordedError(f"the host asks for {self.what}")

    __hash__ = __eq__ = __bool__ = __int__ = __index__ = __float__ = __len__ = __iter__ = _refuse  # type: ignore[assignment]
    __add__ = __radd__ = __mul__ = __rmul__ = __and__ = __rand__ = __rshift__ = __mod__ = _refuse


class Key(NamedTuple):
    """Passes of one key are alike in everything that a graph keeps.

    Attributes:
        tokens: of a row; `answer`: of a row of an encoder-decoder's targets, else 0.
        targets: number of targets, with those that only fill up.
        segments: rows and kind of each candidate.
    """

    tokens: int
    answer: int
    targets: int
    segments: tuple[tuple[int, int], ...]


class Block:
    """Tensors one behind another in one piece of device memory, so that one copy fills them all."""

    def __init__(self, like: Mapping[str, Tensor], device: torch.device) -> None:
        self._bytes = sum(_room(tensor) for tensor in like.values())
        self._like = {name: (tensor.dtype, tensor.shape) for name, tensor in like.items()}
        self._memory = torch.empty(self._bytes, dtype=torch.uint8, device=device)
        self.tensors = self._views(self._memory)

    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy from the host without waiting; the same names and shapes as at first."""
        host = torch.empty(self._bytes, dtype=torch.uint8)
        for name, view in self._views(host).items():
            view.copy_(tensors[name])
        self._memory.copy_(host.pin_memory(), non_blocking=True)

    def _views(self, memory: Tensor) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        start = 0
        for name, (dtype, shape) in self._like.items():
            size = shape.numel() * dtype.itemsize
            found[name] = memory[start : start + size].view(dtype).view(shape)
            start += -(-size // 16) * 16
        return found


@dataclass
class Recorded:
    """A graph, what it reads, and the losses [rows] that it leaves."""

    graph: torch.cuda.CUDAGraph
    block: Block
    losses: Tensor


class PassGraphs:
    """Runs passes, and records those that repeat.

    Args:
        longest: tokens of the longest row, and of the longest answer of an encoder-decoder.

    Attributes:
        refused: why passes of a key are not recorded.
        stopped: why none are recorded any more; None while they are.
        recorded, replays: how many graphs were made, and how often one ran.
    """

    def __init__(
        self, packed: PackedModel, objective: Objective, pad_id: int, longest: tuple[int, int]
    ) -> None:
        self.packed, self.objective, self.pad_id, self.longest = packed, objective, pad_id, longest
        self.refused: dict[Key, str] = {}
        self.stopped: str | None = None
        self.recorded = self.replays = 0
        self._seen: Counter[Key] = Counter()
        self._graphs: OrderedDict[Key, Recorded] = OrderedDict()
        self._changes = packed.changes
        self._pool: Any = None

    def ordered(self, group: Sequence[Seat], micro: Mapping[str, Numbers]) -> list[Seat]:
        """The candidates of a pass in an order that repeats; it changes nothing for any of them."""
        return sorted(group, key=lambda seat: (len(micro[seat.id]), self.packed.kind(seat.id)))

    def run(self, one: Pass, through: Callable[[Pass], Tensor], *, fresh: bool) -> Tensor:
        """Losses [rows] of a pass, by `through` or by a graph of it.

        Args:
            through: runs a pass forwards and backwards.
            fresh: gradients of all its candidates are zero.
        """
        if self._changes != self.packed.changes:
            self.clear()
        key = None if self.stopped else self._key(one)
        if key is None or key in self.refused:
            return through(one)
        if key in self._graphs:
            self._graphs.move_to_end(key)
            return self._replay(self._graphs[key], self._inputs(one, key))
        self._seen[key] += 1
        if self._seen[key] < SEEN or not fresh or len(self.refused) >= REFUSALS:
            return through(one)
        losses = self._record(one, key, through)
        return through(one) if losses is None else losses

    def clear(self) -> None:
        """Drop all graphs, and what was learnt about passes of the candidates of before."""
        if self._graphs:
            torch.cuda.synchronize(self.packed.device)
        self._graphs.clear()
        self._seen.clear()
        self.refused.clear()
        self._pool = None
        self._changes = self.packed.changes

    def stop(self, reason: str) -> None:
        """Drop all graphs and make no more."""
        self.clear()
        self.stopped = reason

    # -- what passes have in common ---------------------------------------------------------------------

    def _key(self, one: Pass) -> Key | None:
        """None for a pass that has what graphs do not, or would need too much padding."""
        targets_BT = self.objective.targets(one.batch)
        count = 0 if targets_BT is None else int((targets_BT != IGNORED).sum())
        if one.noises or one.batch.examples or (targets_BT is not None and not count):
            return None
        rows, tokens = one.batch.input_ids.shape
        answer = one.batch.labels.shape[1] if self.longest[1] else 0
        wide = padded_length(tokens, self.longest[0])
        wide_answer = padded_length(answer, self.longest[1])
        if rows * (wide + wide_answer) > max(SMALL, PADDING * rows * (tokens + answer)):
            return None
        step = -(-rows * (wide_answer or wide) // TARGET_STEPS)
        segments = tuple((s.stop - s.start, self.packed.kind(s.trial)) for s in one.routing.segments)
        return Key(wide, wide_answer, -(-count // step) * step, segments)

    def _inputs(self, one: Pass, key: Key) -> dict[str, Tensor]:
        """All that differs between passes of one key, padded, on the host."""
        batch = _padded(one.batch, key, self.pad_id)
        tables = self.packed.tables()
        found = {
            "ids": batch.input_ids,
            "mask": batch.attention_mask,
            "labels": batch.labels,
            "shares": one.shares,
        }
        targets_BT = self.objective.targets(batch)
        if targets_BT is not None:
            at_3N = Positions.table(targets_BT)
            filling = key.targets - at_3N.shape[1]
            found["at"] = torch.cat([at_3N, at_3N[:, -1:].expand(3, filling)], 1)
            found["counted"] = torch.arange(key.targets) < at_3N.shape[1]
        if tables is not None:
            for tokens in sorted({key.tokens, key.answer, 1} - {0}):
                found[f"spans {tokens}"] = tables.host_spans(one.routing.segments, tokens)
        return found

    def _given(self, one: Pass, key: Key, there: Mapping[str, Tensor]) -> Pass:
        """The pass whose inputs are these tensors of the device, with everything hidden that a graph
        would not see change."""
        seed: Any = Hidden("the seed of a candidate's dropout")
        segments = tuple(replace(segment, seed=seed) for segment in one.routing.segments)
        routing = Routing(segments, training=True, tables=self.packed.tables())
        routing.take_spans(
            {int(name.split()[1]): table for name, table in there.items() if name.startswith("spans")}
        )
        host: Any = Hidden("what a batch holds")
        batch = Batch(there["ids"], there["mask"], there["labels"], host=host)
        at = None
        if key.targets:
            rows: Any = Hidden("the rows that targets are in")
            rows_N, columns_N, targets_N = there["at"]
            at = Positions(rows_N, columns_N, targets_N, host_rows_N=rows, counted_N=there["counted"])
        return Pass(batch, routing, (), there["shares"], at)

    # -- recording --------------------------------------------------------------------------------------

    def _replay(self, recorded: Recorded, inputs: Mapping[str, Tensor]) -> Tensor:
        recorded.block.fill(inputs)
        recorded.graph.replay()
        self.replays += 1
        return recorded.losses.clone()  # the same graph may run again before they are read

    def _record(self, one: Pass, key: Key, through: Callable[[Pass], Tensor]) -> Tensor | None:
        """Run the pass in the way of a graph, then record it. None where it could not be run so, with
        nothing counted."""
        try:
            inputs = self._inputs(one, key)
            block = Block(inputs, self.packed.device)
            stream = torch.cuda.Stream(self.packed.device)
            block.fill(inputs)
            given = self._given(one, key, block.tensors)
            with _beside(stream), _as_if_recorded(), _rows_are_whole():
                losses = through(given)
            losses = losses.clone()
        # whatever it is, the plain way will meet it too if it is more than a refusal
        except Exception as error:
            self.refused[key] = _reason(error)
        else:
            self._capture(key, block, stream, lambda: through(given))
            return losses
        for segment in one.routing.segments:
            self.packed.adapters[segment.trial].arena.grads.zero_()
        return None

    def _capture(
        self, key: Key, block: Block, stream: torch.cuda.Stream, run: Callable[[], Tensor]
    ) -> None:
        """Record; nothing runs meanwhile."""
        while len(self._graphs) >= MOST:
            torch.cuda.synchronize(self.packed.device)
            self._graphs.popitem(last=False)
        # what refers to itself may hold memory of an older pass, and may not be given back in between
        gc.collect()
        try:
            graph = torch.cuda.CUDAGraph()
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            options: Any = {"pool": self._pool, "stream": stream, "capture_error_mode": "thread_local"}
            with _rows_are_whole(), torch.cuda.graph(graph, **options):
                losses = run()
        except Exception as error:
            # torch may not be left fit to record anything else.
            self.stop(_reason(error))
        else:
            self._graphs[key] = Recorded(graph, block, losses)
            self.recorded += 1


def padded_length(length: int, longest: int) -> int:
    """Tokens that a row of this length is padded to."""
    if length <= 1:
        return length
    multiple = -(-length // LENGTH) * LENGTH if length > LENGTH else 1 << (length - 1).bit_length()
    return max(length, min(multiple, longest))


def _padded(batch: Batch, key: Key, pad_id: int) -> Batch:
    labels = batch.labels
    wide = key.answer or key.tokens
    return Batch(
        _to_width(batch.input_ids, key.tokens, pad_id),
        _to_width(batch.attention_mask, key.tokens, fill=False),
        labels if labels.ndim == 1 else _to_width(labels, wide, IGNORED),
    )


def _to_width(x_BT: Tensor, width: int, fill: int) -> Tensor:
    return F.pad(x_BT, (0, width - x_BT.shape[1]), value=fill)


def _room(tensor: Tensor) -> int:
    return -(-tensor.numel() * tensor.element_size() // 16) * 16


@contextmanager
def _beside(stream: torch.cuda.Stream) -> Generator[None]:
    """On a stream of its own, as torch asks of what is recorded there next: after what
    is queued, and before what follows."""
    queued = torch.cuda.current_stream(stream.device)
    stream.wait_stream(queued)
    try:
        with torch.cuda.stream(stream):
            yield
    finally:
        queued.wait_stream(stream)


@contextmanager
def _as_if_recorded() -> Generator[None]:
    """Within, all who ask are told that a graph is being recorded, and a wait for the device is an
    error, as it would be then.

    A recording that fails leaves torch's memory in a state from which nothing can be
    recorded; this leaves it alone.
    """
    mode, asked = torch.cuda.get_sync_debug_mode(), torch.cuda.is_current_stream_capturing
    torch.cuda.is_current_stream_capturing = lambda: True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it does not find every wait: the recording then does
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(mode)
        torch.cuda.is_current_stream_capturing = asked


@contextmanager
def _rows_are_whole() -> Generator[None]:
    """Within, transformers takes each row for one text, as ours are. It would look at the positions on
    the device, or, while a graph is recorded, give attention a mask for rows of several texts: and what
    is fastest without a mask takes none.
    """
    from transformers import masking_utils

    name = "find_packed_sequence_indices"
    looks = getattr(masking_utils, name, None)
    setattr(masking_utils, name, lambda position_ids: None)
    try:
        yield
    finally:
        setattr(masking_utils, name, looks)


def _reason(error: BaseException) -> str:
    """What went wrong first: the end of a recording that failed fails again."""
    while error.__context__ is not None:
        error = error.__context__
    return first_line(error)
