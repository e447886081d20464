"""Gradient checkpointing of a frozen model: keep the input of each repeated block, run
the block again in backward.

Always non-reentrant, and always with the routing of the forward pass: a recomputation that lost it would
give silent zero gradients (huggingface/peft#2826). transformers' own switch is of no use here, since it
asks for training mode and the base stays in eval mode. No generator is replayed: dropout masks and noise
are functions of seeds.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from loraloom.errors import ModelError
from loraloom.lora.offload import HostInputs

BRING = "bring_weights"
"""Attribute of streamed blocks, and of modules in them: a function that has their weights brought."""
KeepRouting = Callable[[], AbstractContextManager[Any]]
"""Called in the forward pass; gives the context in which the same pass can be run again."""


def repeated_blocks(model: nn.Module) -> list[nn.Module]:
    """The members of the outermost module lists: a transformer's layers, of encoder and
    decoder alike."""
    lists = [(name, part) for name, part in model.named_modules() if isinstance(part, nn.ModuleList)]
    outermost = [
        part for name, part in lists if not any(name.startswith(f"{other}.") for other, _ in lists)
    ]
    return [block for part in outermost for block in part]


def checkpoint_blocks(
    model: nn.Module, keep_routing: KeepRouting, host: HostInputs | None = None
) -> None:
    """Checkpoint every repeated block of `model`, in place, whenever gradients are on.

    Args:
        host: keeps the blocks' inputs; None for the device itself.

    Raises:
        ModelError: the model has no repeated blocks.
    """
    blocks = repeated_blocks(model)
    if not blocks:
        raise ModelError(
            f"`training.gradient_checkpointing` needs repeated blocks, and {type(model).__name__} has"
            " none",
            next="training.gradient_checkpointing: false",
        )
    for block in blocks:
        block.forward = _checkpointed(_with_weights(block), keep_routing, host)


def bring_weights(module: nn.Module) -> None:
    """Have the weights of a streamed block, or of a module in one, there for whoever reads them outside
    of the block's own pass (`lora.streaming`)."""
    if (bring := vars(module).get(BRING)) is not None:
        bring()


def _with_weights(block: nn.Module) -> Callable[..., Any]:
    """The block's forward; run again, it is not called as a module, whose hooks would do this."""
    forward = block.forward

    @functools.wraps(forward)
    def run(*args: Any, **kwargs: Any) -> Any:
        bring_weights(block)
        return forward(*args, **kwargs)

    return run


def _checkpointed(
    forward: Callable[..., Any], keep_routing: KeepRouting, host: HostInputs | None
) -> Callable[..., Any]:
    first = next(iter(inspect.signature(forward).parameters))

    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        if kwargs.get("past_key_values") is not None:
            # A block that runs twice would append to the cache twice, and training reads none.
            kwargs["past_key_values"] = None
        if host is not None and not args:
            # Only arguments without a name are kept where the hooks of saved tensors see them.
            args = (kwargs.pop(first),)
        again = keep_routing()
        with nullcontext() if host is None else host.instead_of(args[0]):
            return checkpoint(
                forward,
                *args,
                use_reentrant=False,
                preserve_rng_state=False,
                context_fn=lambda: (nullcontext(), again),
                **kwargs,
            )

    return run
