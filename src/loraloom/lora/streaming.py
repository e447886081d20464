"""A base that is larger than its device: the frozen weights of repeated blocks wait in pinned memory of
the host, and come for each pass, dense or as codes, once for all candidates of the pack.

Two places on the device take the blocks in turn, and a weight of a block is for ever a view of its
place: whoever holds it reads what was copied there last. While one block runs, the next one comes on a
stream beside that of the products, on the way forwards and on the way back. There a block has to be run
again before its gradients are formed, since its weights were replaced: checkpointing is not a choice.

With b bytes a number, a link of l bytes and a device of f operations a second, copies are hidden in
passes of more than f b / (3 l) tokens: 2 b / l seconds a number against 6 / f a number and token.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from loraloom.errors import ModelError
from loraloom.lora.checkpointing import BRING, repeated_blocks
from loraloom.lora.device_faults import is_out_of_memory

PLACES = 2
"""Blocks on the device: the one that runs, and the one that comes."""
ALIGNED = 256
"""Bytes at a multiple of which a weight begins, as the allocator of CUDA has it."""


class BlockStream:
    """Brings the weights of a model's blocks; made once, in place of moving the model to the device.

    Args:
        model: on the host. Its blocks' weights become views of the two places, all else moves there.

    Attributes:
        copies: how often a block was brought.

    Raises:
        ModelError: there are no blocks, or the host has no memory for their weights.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.device, self.copies = device, 0
        blocks = repeated_blocks(model)
        if not blocks:
            raise ModelError(
                f"`model.streaming` needs repeated blocks, and {type(model).__name__} has none",
                next="model.streaming: false",
            )
        own = [list(_own_tensors(block, _shared(model, blocks))) for block in blocks]
        self._host = [_pinned([tensor for *_, tensor in tensors]) for tensors in own]
        room = max(host.numel() for host in self._host)
        self._places = [torch.empty(room, dtype=torch.uint8, device=device) for _ in range(PLACES)]
        self._side = torch.cuda.Stream(device)
        for place in self._places:
            place.record_stream(self._side)
        self._there = [torch.cuda.Event() for _ in range(PLACES)]
        self._held: list[int | None] = [None] * PLACES
        self._latest = -1
        for number, (block, tensors) in enumerate(zip(blocks, own, strict=True)):
            self._take_over(number, block, tensors)
        _move_rest(model, device)

    def bring(self, number: int) -> None:
        """Have the weights of a block there for all that is queued from now on; those of the one that
        will be asked for next are then on their way."""
        place = number % PLACES
        if self._held[place] != number:
            self._copy(number)
        torch.cuda.current_stream(self.device).wait_event(self._there[place])
        if number == self._latest:
            return
        step = number - self._latest if abs(number - self._latest) == 1 else 1
        self._latest, ahead = number, number + step
        if 0 <= ahead < len(self._host) and self._held[ahead % PLACES] != ahead:
            self._copy(ahead)

    def _copy(self, number: int) -> None:
        """Begin to copy a block, once all that is queued so far is done with what was in its place."""
        place, host = number % PLACES, self._host[number]
        self._side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._side):
            self._places[place][: host.numel()].copy_(host, non_blocking=True)
            self._there[place].record(self._side)
        self._held[place], self.copies = number, self.copies + 1

    def _take_over(
        self, number: int, block: nn.Module, tensors: list[tuple[nn.Module, str, Tensor]]
    ) -> None:
        start, place = 0, self._places[number % PLACES]
        for module, name, tensor in tensors:
            view = place[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
            _put(module, name, view)
            start += _room(tensor)

        # A function, and no method: a copy of the model shares what is streamed, and copies no function.
        def bring(*_: Any) -> None:
            self.bring(number)

        def bring_back(module: nn.Module, given: Any, output: Any) -> None:
            # What needs nothing saved for its gradient would not wait until the block is run again.
            for tensor in tree_leaves(output):
                if isinstance(tensor, Tensor) and tensor.requires_grad:
                    tensor.register_hook(bring)

        block.register_forward_pre_hook(bring)
        block.register_forward_hook(bring_back)
        for module in block.modules():
            setattr(module, BRING, bring)


def is_streamed(model: nn.Module) -> bool:
    """Whether blocks of this model are brought."""
    return any(BRING in vars(module) for module in model.modules())


def _shared(model: nn.Module, blocks: list[nn.Module]) -> set[int]:
    """Tensors that are used in more than one block, or outside of them too: they stay on the device."""
    everywhere = Counter(id(tensor) for *_, tensor in _tensors(model))
    seen: set[int] = set()
    for block in blocks:
        inside = Counter(id(tensor) for *_, tensor in _tensors(block))
        seen |= {tensor for tensor, count in inside.items() if count < everywhere[tensor]}
    return seen


def _own_tensors(block: nn.Module, shared: set[int]) -> Iterator[tuple[nn.Module, str, Tensor]]:
    for module, name, tensor in _tensors(block):
        if id(tensor) not in shared and tensor.numel():
            yield module, name, tensor


def _tensors(model: nn.Module) -> Iterator[tuple[nn.Module, str, Tensor]]:
    """Every parameter and buffer with the module that holds it."""
    for module in model.modules():
        for held in (module._parameters, module._buffers):  # pyright: ignore[reportPrivateUsage]
            for name, tensor in held.items():
                if tensor is not None:
                    yield module, name, tensor


def _room(tensor: Tensor) -> int:
    return -(-tensor.nbytes // ALIGNED) * ALIGNED


def _pinned(tensors: list[Tensor]) -> Tensor:
    """These tensors one behind another, as bytes, in memory that a copy need not wait for."""
    size = sum(map(_room, tensors))
    try:
        host = torch.empty(size, dtype=torch.uint8, pin_memory=True)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise ModelError(
            "the host has no memory for the weights that are to be streamed",
            got=f"no {size / 2**20:,.0f} MiB more that stay in place",
            need="memory of the host for all weights of the blocks",
            next="model.quantization: nf4, which takes a quarter, or a smaller model",
        ) from error
    start = 0
    for tensor in tensors:
        part = host[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        part.copy_(tensor.detach())
        start += _room(tensor)
    return host


def _put(module: nn.Module, name: str, tensor: Tensor) -> None:
    if name in module._parameters:  # pyright: ignore[reportPrivateUsage]
        module._parameters[name] = nn.Parameter(tensor, requires_grad=False)  # pyright: ignore[reportPrivateUsage]
    else:
        module._buffers[name] = tensor  # pyright: ignore[reportPrivateUsage]


def _move_rest(model: nn.Module, device: torch.device) -> None:
    """Move what is still on the host; what is tied stays tied."""
    moved: dict[int, Tensor] = {}
    for module, name, tensor in list(_tensors(model)):
        if tensor.device.type == "cpu":
            there = moved.get(id(tensor))
            if there is None:
                there = tensor.detach().to(device)
                there = nn.Parameter(there, False) if isinstance(tensor, nn.Parameter) else there
                moved[id(tensor)] = there
            held = module._parameters if name in module._parameters else module._buffers  # pyright: ignore[reportPrivateUsage]
            held[name] = there  # type: ignore[assignment]
