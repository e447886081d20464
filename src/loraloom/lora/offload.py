"""What checkpointing keeps of each repeated block waits on the host: its input leaves the device while
the next block runs, and is back when the block is run again.

Copies run on a stream beside that of the products. On the way back the input of the block before is
fetched while a block is walked, so that one block's time hides one copy. CUDA alone has a memory apart
from the host's to save; everywhere else this would be a copy for nothing.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


class HostInputs:
    """Sends blocks' inputs to pinned memory of the host, and fetches them for the backward pass.

    The stream of the products is asked for at every use, and never kept: passes may run on another one
    than the model was loaded on (huggingface/trl#7195).

    Attributes:
        moved, moved_bytes: how many inputs were sent, and their bytes, since this was made.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.moved = self.moved_bytes = 0
        self._side = torch.cuda.Stream(device)
        self._latest: Callable[[], _Kept | None] = lambda: None

    def instead_of(self, x: Tensor) -> saved_tensors_hooks:
        """Within, what autograd would keep of `x` is kept on the host. Whatever else it keeps, masks and
        an encoder's states, which all blocks share, stays where it is."""

        def pack(tensor: Tensor) -> Tensor | _Kept:
            same = tensor.data_ptr() == x.data_ptr() and tensor.shape == x.shape
            return self._sent(tensor) if same else tensor

        return saved_tensors_hooks(
            pack, lambda kept: kept.fetched() if isinstance(kept, _Kept) else kept
        )

    def _sent(self, tensor: Tensor) -> _Kept:
        self.moved, self.moved_bytes = self.moved + 1, self.moved_bytes + tensor.nbytes
        self._side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._side):
            host = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=True)
            host.copy_(tensor, non_blocking=True)
        # Its memory may be another tensor's as soon as the block is done: not before it has been read.
        tensor.record_stream(self._side)
        kept = _Kept(self, host, self._latest)
        self._latest = weakref.ref(kept)
        return kept

    def bring(self, host: Tensor) -> tuple[Tensor, torch.cuda.Event]:
        """A copy on the device that is under way, and what to wait for before it is read."""
        with torch.cuda.stream(self._side):
            tensor, there = host.to(self.device, non_blocking=True), torch.cuda.Event()
            there.record(self._side)
            return tensor, there


class _Kept:
    """One input on the host. `before` gives the one of the block before, while the backward pass has use
    for it."""

    def __init__(self, of: HostInputs, host: Tensor, before: Callable[[], _Kept | None]) -> None:
        self._of, self._host, self._before = of, host, before
        self._coming: tuple[Tensor, torch.cuda.Event] | None = None

    def fetched(self) -> Tensor:
        """The input on the device; that of the block before is then on its way."""
        self._fetch()
        assert self._coming is not None
        tensor, there = self._coming
        self._coming = None
        before = self._before()
        if before is not None:
            before._fetch()
        stream = torch.cuda.current_stream(self._of.device)
        stream.wait_event(there)
        tensor.record_stream(stream)
        return tensor

    def _fetch(self) -> None:
        if self._coming is None:
            self._coming = self._of.bring(self._host)
